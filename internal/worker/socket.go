package worker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is sun_path less its final NUL. Source: unix(7).
const maxSocketPath = 107

// socketAddr returns an address for path that the kernel accepts: long paths
// go through a descriptor of their folder, which release closes.
func socketAddr(path string) (addr string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + filepath.Base(path), func() { _ = unix.Close(fd) }, nil
}

// socket is the worker's listening socket, with the identity of its file.
type socket struct {
	path     string
	listener *net.UnixListener
	dev, ino uint64
}

// listen puts a new socket in place of whatever is at path, in one step. The
// mode lets the group connect, which is how the sidecar, another user in the
// volume's group, gets in.
func listen(path string) (*socket, error) {
	temp := filepath.Join(filepath.Dir(path), "."+rand.Text()[:8]+".sock")
	addr, release, err := socketAddr(temp)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path may be another's by then
	s := &socket{path: path, listener: l}
	if err = os.Chmod(temp, 0o660); err == nil { //nolint:gosec // G302: the group is the pod's, the sidecar is in it
		s.dev, s.ino, err = identity(temp)
	}
	if err == nil {
		err = replace(temp, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(temp)
		return nil, err
	}
	return s, nil
}

// replace renames, also over a folder that user code put in the way.
func replace(from, to string) error {
	err := os.Rename(from, to)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// intact reports whether the path still leads to this socket.
func (s *socket) intact() bool {
	dev, ino, err := identity(s.path)
	return err == nil && dev == s.dev && ino == s.ino
}

// close ends the socket and removes its file if it still is ours.
func (s *socket) close() {
	if s.intact() {
		_ = os.Remove(s.path)
	}
	_ = s.listener.Close()
}

func identity(path string) (dev, ino uint64, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("stat %s: unexpected type %T", path, info.Sys())
	}
	return stat.Dev, stat.Ino, nil
}
