package execution_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/plugin/journal"
)

var (
	errAway   = errors.New("dial tcp 10.0.0.1:443: connect: connection refused")
	errServer = errors.New("etcdserver: request timed out")
)

// configMaps is an API server's ConfigMaps in memory, with the faults that it
// may have: so it can live on a test's clock.
type configMaps struct {
	mu      sync.Mutex
	version int
	stored  map[string]kube.ConfigMap
	// away is when the server comes back.
	away time.Time
	// lost answers take effect, refused and failing writes do not.
	lost, refused, failing int
}

func newConfigMaps() *configMaps { return &configMaps{stored: map[string]kube.ConfigMap{}} }

func (m *configMaps) fault(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *configMaps) goAway(d time.Duration) { m.fault(func() { m.away = time.Now().Add(d) }) }

// heal ends all faults.
func (m *configMaps) heal() {
	m.fault(func() { m.away, m.lost, m.refused, m.failing = time.Time{}, 0, 0, 0 })
}

// touch is somebody else's write.
func (m *configMaps) touch() {
	m.fault(func() {
		for name, cm := range m.stored {
			m.version++
			cm.ResourceVersion = strconv.Itoa(m.version)
			m.stored[name] = cm
		}
	})
}

// ask fails while the server is away.
func (m *configMaps) ask(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if time.Now().Before(m.away) {
		return errAway
	}
	return nil
}

// ConfigMap is kube.Client's.
func (m *configMaps) ConfigMap(ctx context.Context, _, name string) (*kube.ConfigMap, error) {
	if err := m.ask(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	cm, ok := m.stored[name]
	if !ok {
		return nil, fmt.Errorf("get config map: %w", kube.ErrNotFound)
	}
	cm.Data = maps.Clone(cm.Data)
	return &cm, nil
}

// CreateConfigMap is kube.Client's.
func (m *configMaps) CreateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	return m.write(ctx, cm, false)
}

// UpdateConfigMap is kube.Client's.
func (m *configMaps) UpdateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	return m.write(ctx, cm, true)
}

func (m *configMaps) write(ctx context.Context, cm *kube.ConfigMap, exists bool) (*kube.ConfigMap, error) {
	if err := m.ask(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was, ok := m.stored[cm.Name]
	switch {
	case m.refused > 0:
		m.refused--
		return nil, fmt.Errorf("write config map: %w", kube.ErrForbidden)
	case m.failing > 0:
		m.failing--
		return nil, errServer
	case ok && !exists:
		return nil, fmt.Errorf("create config map: %w", kube.ErrExists)
	case !ok && exists:
		return nil, fmt.Errorf("update config map: %w", kube.ErrNotFound)
	case exists && was.ResourceVersion != cm.ResourceVersion:
		return nil, fmt.Errorf("update config map: %w", kube.ErrConflict)
	}
	next := *cm
	m.version++
	next.ResourceVersion, next.Data = strconv.Itoa(m.version), maps.Clone(cm.Data)
	m.stored[cm.Name] = next
	if m.lost > 0 {
		m.lost--
		return nil, errAway
	}
	return &next, nil
}

// entries is what the journal holds, whoever writes it.
func (m *configMaps) entries() (all []journal.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, cm := range m.stored {
		for key, value := range cm.Data {
			var e journal.Entry
			if strings.HasPrefix(key, "execution.") && json.Unmarshal([]byte(value), &e) == nil {
				all = append(all, e)
			}
		}
	}
	return all
}

// podMaps is how one pod sees the server. What it writes has to be its own.
type podMaps struct {
	*configMaps

	pod  string
	fail func(format string, args ...any)
}

// UpdateConfigMap is kube.Client's.
func (p *podMaps) UpdateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	var writer struct {
		PodUID string `json:"podUID"`
	}
	if err := json.Unmarshal([]byte(cm.Data["writer"]), &writer); err != nil || writer.PodUID != p.pod {
		p.fail("%s writes the journal of %s: %v", p.pod, writer.PodUID, err)
	}
	return p.configMaps.UpdateConfigMap(ctx, cm)
}
