package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
)

// logsPoll is how often -f looks for more. The plugin uploads every three
// seconds.
const logsPoll = time.Second

// logsFlags are the flags of `aphex logs`.
type logsFlags struct {
	lookupFlags

	follow bool
}

func newLogs() *cobra.Command {
	f := logsFlags{}
	cmd := &cobra.Command{
		Use:   "logs RUN [STAGE]",
		Short: "Print the logs of a run from its bucket",
		Long: `Prints the log of one stage (build, deploy-dev, …), of its last try if there are
several, or of all stages in the order they ran, each line prefixed by its stage.
The logs are read from the pipeline's bucket, so they are there while a stage
runs, after its pod is gone, and after the run has been removed.

RUN is the name of the Workflow; of one that has been removed, its name or UID
with --pipeline. The pipeline's installation in the cluster says which bucket; AWS
credentials are those of your environment.`,
		Args: runAndAtMostOne("stage"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := f.source(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return source.print(cmd.Context(), strings.Join(args[1:], ""), f.follow, cmd.OutOrStdout())
		},
	}
	f.register(cmd.Flags(), "run", "pipeline of a run that has been removed from the cluster")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on until the stage, or the run, has ended")
	return cmd
}

// runLogs are the logs of one run.
type runLogs struct {
	store stagelog.Store
	// name is what the user calls the run.
	name, uid string
	// over reports whether the run has ended, so that nothing will be added.
	over func(ctx context.Context) (bool, error)
}

func (f *logsFlags) source(ctx context.Context, name string) (*runLogs, error) {
	if f.dir != "" {
		over := func(context.Context) (bool, error) { return true, nil }
		return &runLogs{store: localBucket(f.dir, name), name: name, uid: name, over: over}, nil
	}
	client, err := f.cluster()
	if err != nil {
		return nil, err
	}
	bucket, uid, err := f.bucketOf(ctx, client, name)
	if err != nil {
		return nil, err
	}
	return &runLogs{store: bucket, name: name, uid: uid, over: func(ctx context.Context) (bool, error) {
		w, err := client.Workflow(ctx, f.namespace, name)
		if errors.Is(err, kube.ErrNotFound) {
			return true, nil
		}
		return err == nil && w.Finished(), err
	}}, nil
}

// print prints the logs of stage, or of all stages if it is empty.
func (r *runLogs) print(ctx context.Context, stage string, follow bool, out io.Writer) error {
	logs := map[string]*printedLog{}
	for {
		// Asked first: what was written before the end is then seen.
		over := !follow
		if !over {
			var err error
			if over, err = r.over(ctx); err != nil {
				return rejected("look at run "+r.name, "Try again", err)
			}
		}
		done, err := r.copy(ctx, stage, logs, out)
		if err != nil {
			return err
		}
		if over && len(logs) == 0 {
			return r.nothing(ctx, stage)
		}
		if over || done && stage != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // the user has seen enough
		case <-time.After(logsPoll):
		}
	}
}

// printedLog is one log and where it is printed to.
type printedLog struct {
	*stagelog.Cursor
	out io.Writer
}

// copy prints what is new. done says that every log printed is complete.
func (r *runLogs) copy(ctx context.Context, stage string, logs map[string]*printedLog, out io.Writer) (done bool, err error) {
	entries, err := stagelog.List(ctx, r.store, r.uid)
	if err != nil {
		return false, err
	}
	if stage != "" {
		entries = last(entries, stage)
	}
	done = len(entries) > 0
	for _, entry := range entries {
		key := entry.Stage + "/" + entry.Try
		log := logs[key]
		if log == nil {
			log = &printedLog{stagelog.NewCursor(r.store, r.uid, entry), prefixed(out, entry.Stage, stage == "")}
			logs[key] = log
		}
		if !log.Complete() {
			if err := log.Copy(ctx, log.out); err != nil {
				return false, err
			}
		}
		done = done && log.Complete()
	}
	return done, nil
}

// last returns the last try of a stage, if there is one.
func last(entries []stagelog.Entry, stage string) []stagelog.Entry {
	for _, entry := range slices.Backward(entries) {
		if entry.Stage == stage || "deploy-env-"+strings.TrimPrefix(entry.Stage, "deploy-") == stage {
			return []stagelog.Entry{entry}
		}
	}
	return nil
}

// prefixed puts the stage before each line.
func prefixed(out io.Writer, stage string, prefix bool) io.Writer {
	if !prefix {
		return out
	}
	return &stagelog.Lines{Line: func(line []byte) { _, _ = fmt.Fprintf(out, "[%s] %s\n", stage, line) }}
}

// nothing says why nothing was printed.
func (r *runLogs) nothing(ctx context.Context, stage string) error {
	entries, err := stagelog.List(ctx, r.store, r.uid)
	if err != nil {
		return err
	}
	op := "find the logs of run " + r.name
	if len(entries) == 0 {
		return fault.Newf(fault.User, fault.LogMissing, op, "Check the name; a stage's log appears some seconds after it has begun", "the bucket has none")
	}
	var stages []string
	for _, entry := range entries {
		if !slices.Contains(stages, entry.Stage) {
			stages = append(stages, entry.Stage)
		}
	}
	return fault.Newf(fault.User, fault.LogMissing, op, "Name one of them", "stage %s has none; there are logs of %s", stage, strings.Join(stages, ", "))
}
