package parity

import (
	"os"
	"path/filepath"
	"sync"
)

// assemblies keeps what was synthesized: an assembly does not depend on what
// is in the account.
type assemblies struct {
	dir string

	mu   sync.Mutex
	made map[string]*made
}

type made struct {
	once sync.Once
	dir  string
	err  error
}

func newAssemblies(dir string) *assemblies { return &assemblies{dir: dir, made: map[string]*made{}} }

// get returns the folder of an assembly, which make has filled the first time.
func (a *assemblies) get(app string, variant Variant, fill func(dir string) error) (string, error) {
	key := app + "." + string(variant)
	a.mu.Lock()
	m := a.made[key]
	if m == nil {
		m = &made{dir: filepath.Join(a.dir, key)}
		a.made[key] = m
	}
	a.mu.Unlock()
	m.once.Do(func() {
		if m.err = os.MkdirAll(m.dir, 0o750); m.err == nil {
			m.err = fill(m.dir)
		}
	})
	return m.dir, m.err
}
