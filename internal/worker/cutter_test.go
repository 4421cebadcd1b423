package worker_test

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy passes a socket on until it is cut, as a sidecar that dies does.
type proxy struct {
	socket string
	cut    func()
}

func cutter(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{socket: filepath.Join(t.TempDir(), "p.sock")}
	l, err := net.Listen("unix", p.socket)
	require.NoError(t, err)
	var mu sync.Mutex
	var conns []net.Conn
	var group sync.WaitGroup
	p.cut = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	group.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", target)
			if err != nil {
				_ = in.Close()
				return
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			group.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			group.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.cut(); group.Wait() })
	return p
}
