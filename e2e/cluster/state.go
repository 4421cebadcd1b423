package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// stateFile is the file of the state directory that describes the cluster.
const stateFile = "cluster.json"

// registryDir holds a copy of the description of each local cluster on this
// machine, so that one whose state directory is gone can still be removed. It
// does not outlive a boot, and neither do the clusters.
const registryDir = "/run/aphex-cluster"

// state describes a cluster: what was made or is about to be.
type state struct {
	ID          string  `json:"id"`
	Provider    string  `json:"provider"`
	Dir         string  `json:"dir"`
	BootID      string  `json:"bootID"`
	Keep        bool    `json:"keep"`
	Owner       process `json:"owner"`
	Namespace   string  `json:"namespace"`
	Kubeconfig  string  `json:"kubeconfig"`
	HostAddress string  `json:"hostAddress"`
	Tools       Tools   `json:"tools"`

	// Server is Argo's server, if it was started.
	Server *process `json:"server,omitempty"`

	Local    *localState    `json:"local,omitempty"`
	Existing *existingState `json:"existing,omitempty"`
}

// clusterID derives the short name of a cluster from its state directory.
func clusterID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:4])
}

// newState returns the state of a cluster that this process is to make.
func newState(c Config) (*state, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	owner, err := identify(filepath.Base(os.Args[0]), os.Getpid())
	if err != nil {
		return nil, err
	}
	return &state{
		ID: clusterID(c.Dir), Provider: c.Provider, Dir: c.Dir, BootID: boot, Keep: c.Keep, Owner: owner, Namespace: c.Namespace,
		Kubeconfig: filepath.Join(c.Dir, "kubeconfig"),
	}, nil
}

// logs is the folder with the logs of the components.
func (s *state) logs() string { return filepath.Join(s.Dir, "log") }

// path returns a path inside the state directory.
func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// orphaned reports whether the process that made the cluster is gone although
// the cluster was to end with it, or the machine was started anew since.
func (s *state) orphaned() bool {
	boot, err := bootID()
	if err == nil && boot != s.BootID {
		return true
	}
	return !s.Keep && !s.Owner.alive()
}

// save writes the state into the state directory and, for a local cluster,
// the registry. It is called before each thing is made.
func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(s.path(stateFile), data, 0o600); err != nil {
		return err
	}
	if s.Local == nil {
		return nil
	}
	return writeFile(registryFile(s.ID), data, 0o600)
}

// forget removes both copies of the state.
func (s *state) forget() error {
	var problems []error
	paths := []string{s.path(stateFile)}
	if s.Local != nil {
		paths = append(paths, registryFile(s.ID))
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func registryFile(id string) string { return filepath.Join(registryDir, id+".json") }

// readState reads a description. Error: fs.ErrNotExist if there is none.
func readState(path string) (*state, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the file if no cluster of it is left", path, err)
	}
	return s, nil
}

// registered returns the local clusters that the registry knows.
func registered() ([]*state, error) {
	paths, err := filepath.Glob(filepath.Join(registryDir, "*.json"))
	if err != nil {
		return nil, err
	}
	var found []*state
	for _, path := range paths {
		s, err := readState(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, nil
}

// writeFile writes a file whole or not at all and makes its directory.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
