package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// storage is a place where buildah keeps images during one build.
type storage struct {
	dir  string
	lock *flock.Flock
}

// newStorage makes a storage in parent and removes those whose processes have
// died.
func newStorage(parent string) (*storage, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(parent, "storage-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		s := &storage{dir: dir, lock: flock.New(filepath.Join(dir, "lock"))}
		if held, err := s.lock.TryLock(); err != nil || !held {
			continue // in use, or being removed by somebody else
		}
		if err := s.remove(); err != nil {
			return nil, fmt.Errorf("remove what a killed build left: %w", err)
		}
	}
	dir, err := os.MkdirTemp(parent, "storage-")
	if err != nil {
		return nil, err
	}
	s := &storage{dir: dir, lock: flock.New(filepath.Join(dir, "lock"))}
	if err := s.lock.Lock(); err != nil {
		return nil, err
	}
	// Nothing is pulled from anywhere, so there is no signature to verify.
	policy := []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`)
	return s, os.WriteFile(s.policy(), policy, 0o644)
}

func (s *storage) policy() string { return filepath.Join(s.dir, "policy.json") }

// run runs one buildah command in the storage.
func (s *storage) run(ctx context.Context, log io.Writer, command string, args ...string) error {
	all := append([]string{
		"--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"), "--storage-driver", "overlay",
		command, "--signature-policy", s.policy(),
	}, args...)
	cmd := exec.CommandContext(ctx, "buildah", all...)
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "BUILDAH_LAYERS=false")
	return runCommand(cmd, log)
}

// remove unmounts and removes everything in the storage.
func (s *storage) remove() error {
	mounts, err := mountsBelow(s.dir)
	if err != nil {
		return err
	}
	for i := range mounts { // the last mounted first
		if err := unix.Unmount(mounts[len(mounts)-1-i], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", mounts[len(mounts)-1-i], err)
		}
	}
	return errors.Join(os.RemoveAll(s.dir), s.lock.Unlock())
}

// mountsBelow lists the mount points in dir in the order of mounting. Removing
// a directory with one would remove what is mounted there.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found, lines.Err()
}
