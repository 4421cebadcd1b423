package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

// shared is the lab all tests of the package use; nil unless APHEX_REQUIRE
// asks for a cluster.
var shared *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if !need.Listed(need.Cluster) {
		return m.Run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "aphex-e2e-")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	root, err := filepath.Abs("..")
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	hurried, calm := context.WithCancel(ctx)
	defer calm()
	shared, err = lab.Start(ctx, lab.Config{Root: root, Dir: dir, Log: os.Stderr})
	if err == nil {
		// Whatever ends this function, a signal included, takes the lab down.
		defer func() {
			calm()
			down, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			if err := shared.Stop(down); err != nil {
				_, _ = fmt.Fprintln(os.Stderr, "stop the lab:", err)
				code = 1
			}
			if code == 0 {
				_ = os.RemoveAll(dir)
			} else {
				_, _ = fmt.Fprintln(os.Stderr, "logs are in", dir)
			}
		}()
		err = shared.InstallPlugin(ctx)
	}
	if err == nil {
		err = shared.HurryStagePods(hurried)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "start the lab:", err)
		return 1
	}
	finished := make(chan int, 1)
	go func() { finished <- m.Run() }()
	select {
	case code = <-finished:
		return max(code, isolated(shared))
	case <-ctx.Done():
		_, _ = fmt.Fprintln(os.Stderr, "interrupted: taking the lab down")
		return 1
	}
}

// isolated is 1 if the runs of all tests together wrote to anything but what is
// theirs.
func isolated(l *lab.Lab) (code int) {
	if l.Cluster.AuditLog() == "" {
		_, _ = fmt.Fprintln(os.Stderr, "isolation: not looked at, this kind of cluster keeps no audit log")
		return 0
	}
	found, err := foreignWrites(l)
	if err != nil {
		found = append(found, err.Error())
	}
	for _, text := range found {
		_, _ = fmt.Fprintln(os.Stderr, "isolation:", text)
		code = 1
	}
	return code
}

// needLab returns the lab. It skips the test where no cluster is declared;
// declared and not there cannot happen, TestMain has failed then.
func needLab(t *testing.T) *lab.Lab {
	t.Helper()
	need.Require(t, need.Cluster, need.Emulator, need.Images)
	require.NotNil(t, shared)
	return shared
}
