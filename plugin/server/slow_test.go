package server_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/server"
)

// pipes is a listener in memory, so that time can be told by the test.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.done)
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestServe_CutsSlowClientsOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent  string
		limit time.Duration
	}{
		"in the header": {"POST " + server.ExecutePath + " HTTP/1.1\r\nHost: x\r\n", 10 * time.Second},
		"in the body":   {"POST " + server.ExecutePath + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 100\r\n\r\n{", 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				s := server.New(slog.New(slog.DiscardHandler))
				s.Start(executor{func() []byte { return argo.Quiet(time.Second).Encode() }}, token)
				l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				ended := make(chan error, 1)
				go func() { ended <- server.Serve(ctx, []net.Listener{l}, s, time.Second) }()
				here, there := net.Pipe()
				l.conns <- there
				begin := time.Now()
				_, err := here.Write([]byte(c.sent))
				require.NoError(t, err)
				buffer := make([]byte, 1<<10)
				for err == nil { // an answer, perhaps, and then the end
					_, err = here.Read(buffer)
				}
				require.LessOrEqual(t, time.Since(begin), c.limit+time.Second)
				require.NoError(t, here.Close())
				cancel()
				require.NoError(t, <-ended)
			})
		})
	}
}
