package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// serverStart bounds the start of Argo's server.
const serverStart = 2 * time.Minute

// StartServer starts Argo's server, the real `argo server`, as a process of
// this machine, and returns its URL. It serves plain HTTP and does for a caller
// what the caller's own token lets it (auth mode client). Down stops it. It is
// called once.
func (c *Cluster) StartServer(ctx context.Context) (string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	s := c.state
	if err := os.MkdirAll(s.logs(), 0o755); err != nil {
		return "", err
	}
	logFile := s.path("log", "argo-server.log")
	log, err := os.Create(logFile)
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	// It outlives the call that starts it; Down ends it.
	cmd := exec.Command(s.Tools.Argo, "server", "--namespace", ControllerNamespace,
		"--auth-mode", "client", "--secure=false", "--port", strconv.Itoa(port))
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "KUBECONFIG=" + s.Kubeconfig}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start Argo's server: %w", err)
	}
	server := &component{name: "argo-server", log: logFile, done: make(chan struct{})}
	go func() {
		server.err = cmd.Wait()
		close(server.done)
	}()
	p, err := identify(server.name, cmd.Process.Pid)
	if err != nil {
		return "", errors.Join(server.failed(), err)
	}
	s.Server = &p
	if err := s.save(); err != nil {
		return "", err
	}
	address := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return address, poll(ctx, serverStart, readyPoll, "the start of Argo's server", func(ctx context.Context) (bool, error) {
		if err := server.failed(); err != nil {
			return false, err
		}
		ok, err := get(ctx, http.DefaultClient, address+"/")
		return ok && err == nil, nil
	})
}

// freePort returns a port of the loopback interface that nobody uses.
func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if err := listener.Close(); err != nil || !ok {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return address.Port, nil
}

// stopServer ends Argo's server, if there is one.
func (s *state) stopServer(ctx context.Context) error {
	boot, err := bootID()
	if err != nil || s.Server == nil || boot != s.BootID {
		return err
	}
	return stop(ctx, []process{*s.Server})
}
