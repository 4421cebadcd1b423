package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// DefaultPort is the port in the plugin's container definition.
	DefaultPort = 4355

	// idleTimeout keeps the agent's connections open between polls.
	idleTimeout = 2 * time.Minute
	// headerTimeout bounds clients that never finish their request.
	headerTimeout = 10 * time.Second
	// readTimeout bounds those that never finish its body; the agent itself
	// gives a call up after 30 s.
	readTimeout = 30 * time.Second
	// writeTimeout is from the end of the header to that of the answer: the
	// longest poll and as much again for those who read slowly.
	writeTimeout = time.Minute
	// maxHeader is far above what the agent sends.
	maxHeader = 64 << 10
)

// Listen opens port on the loopback addresses, IPv4 and, where the machine has
// it, IPv6: the agent calls "localhost", which is either. It is an error if
// somebody else has either of them. Port 0 takes a free one. The caller closes the listeners, which Serve does too.
func Listen(ctx context.Context, port int) ([]net.Listener, error) {
	var lc net.ListenConfig
	v4, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen on loopback: %w", err)
	}
	listeners := []net.Listener{v4}
	if addr, ok := v4.Addr().(*net.TCPAddr); ok {
		port = addr.Port
	}
	v6, err := lc.Listen(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
	switch {
	case err == nil:
		listeners = append(listeners, v6)
	case errors.Is(err, syscall.EADDRINUSE): // whoever has it would be sent our token
		return nil, errors.Join(fmt.Errorf("listen on loopback: %w", err), v4.Close())
	}
	return listeners, nil
}

// Serve answers on listeners with handler until ctx ends, then lets running
// requests come to their end for at most grace. The error is that of the
// listeners; a stop by ctx is none.
func Serve(ctx context.Context, listeners []net.Listener, handler http.Handler, grace time.Duration) error {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	errs := make(chan error, len(listeners))
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { errs <- srv.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			err = srv.Close()
		}
	case err = <-errs:
		err = errors.Join(err, srv.Close())
	}
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
