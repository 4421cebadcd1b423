// Command demo shows the main job on this machine: it brings up a local
// cluster with Argo and an emulated AWS, pushes the sample application through
// two accounts, changes one value and pushes again.
//
// Usage: demo up | demo down
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "up":
		err = up(ctx, os.Stdout)
	case len(os.Args) == 2 && os.Args[1] == "down":
		err = down(ctx, os.Stdout)
	default:
		err = errors.New("usage: demo up | demo down")
	}
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "\ndemo failed:", err)
		os.Exit(1)
	}
}

// stateDir is where the demo's cluster lives, below the checkout and ignored
// by git.
func stateDir() (root, dir string, err error) {
	root, err = os.Getwd()
	return root, filepath.Join(root, ".demo"), err
}

func up(ctx context.Context, out io.Writer) error {
	root, dir, err := stateDir()
	if err != nil {
		return err
	}
	began := time.Now()
	_, _ = fmt.Fprintln(out, "Setting up. The first time this builds Kubernetes, Argo and the images from source; later runs take about a minute.")
	return lab.Use(ctx, lab.Config{Root: root, Dir: dir, Log: out, KeepCluster: true}, func(l *lab.Lab) error {
		_, _ = fmt.Fprintf(out, "Set up in %.0f s.\n\n", time.Since(began).Seconds())
		if err := show(ctx, l, root, out); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "\nThe cluster keeps running: export KUBECONFIG=%s\n`make demo-down` removes it.\n", l.Cluster.Kubeconfig())
		return nil
	})
}

func down(ctx context.Context, out io.Writer) error {
	_, dir, err := stateDir()
	if err != nil {
		return err
	}
	c, err := cluster.Attach(filepath.Join(dir, "cluster"), out)
	if errors.Is(err, os.ErrNotExist) {
		_, _ = fmt.Fprintln(out, "there is no demo to remove")
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.Down(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "demo removed")
	return os.RemoveAll(dir)
}
