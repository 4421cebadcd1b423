package synth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/synth"
)

// modules returns a node_modules folder with what testdata/package-lock.json
// pins. It is installed once per machine, outside of the repository.
var modules = sync.OnceValues(func() (string, error) {
	cache := os.Getenv("APHEX_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache", "aphex")
	}
	files := []string{"package.json", "package-lock.json", ".npmrc"}
	sum := sha256.New()
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	dir := filepath.Join(cache, "npm", hex.EncodeToString(sum.Sum(nil)))
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", err
	}
	lock := flock.New(dir + ".lock")
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer func() { _ = lock.Unlock() }()
	done := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	temporary := dir + ".tmp"
	if err := os.RemoveAll(temporary); err != nil {
		return "", err
	}
	if err := os.MkdirAll(temporary, 0o750); err != nil {
		return "", err
	}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(temporary, name), data, 0o600); err != nil {
			return "", err
		}
	}
	install := exec.Command("npm", "ci", "--ignore-scripts")
	install.Dir = temporary
	if output, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, output)
	}
	return done, os.Rename(temporary, dir)
})

// workspace is a worker with the apps of testdata as its checkout.
type workspace struct {
	root    string
	private string
	client  *worker.Client
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	installed, err := modules()
	require.NoError(t, err)
	w := &workspace{root: t.TempDir(), private: t.TempDir()}
	source := filepath.Join(w.root, worker.SourceDir)
	require.NoError(t, os.CopyFS(source, os.DirFS("testdata/apps")))
	require.NoError(t, os.Symlink(installed, filepath.Join(source, "node_modules")))
	socket := filepath.Join(t.TempDir(), "w.sock")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(ctx, worker.ServerConfig{Socket: socket, Root: w.root, Environ: []string{"PATH=" + os.Getenv("PATH")}})
	}()
	t.Cleanup(func() { stop(); require.NoError(t, <-served) })
	w.client = worker.NewClient(socket)
	return w
}

func (w *workspace) synthesizer() *synth.Synthesizer {
	return synth.New(synth.Config{Worker: w.client, Private: w.private, Timeout: 2 * time.Minute})
}

// put writes a file of the checkout.
func (w *workspace) put(t *testing.T, name, content string) {
	t.Helper()
	file := filepath.Join(w.root, worker.SourceDir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}

func environment() pipeline.Environment {
	return pipeline.Environment{Name: "dev", Region: "eu-west-1", Account: "111111111111"}
}

// run synthesizes an app and returns the assembly's folder and the log.
func (w *workspace) run(t *testing.T, app string, change func(*synth.Request)) (dir, log string, err error) {
	t.Helper()
	request := synth.Request{Environment: environment(), App: app, ID: t.Name()}
	if change != nil {
		change(&request)
	}
	var out bytes.Buffer
	dir, err = w.synthesizer().Synth(t.Context(), request, &out)
	return dir, out.String(), err
}
