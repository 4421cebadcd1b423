package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// defaultRuns is how many runs are listed: a screen of them.
const defaultRuns = 20

// recordFlags are the flags of the commands that show records.
type recordFlags struct {
	lookupFlags

	output string
	// wide says that the table may have more columns.
	wide  bool
	limit int
}

func (f *recordFlags) register(cmd *cobra.Command, pipelineUsage string) {
	f.lookupFlags.register(cmd.Flags(), "pipeline", pipelineUsage)
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", formats(f.wide))
}

// formats are the allowed values of --output.
func formats(wide bool) string {
	if wide {
		return "table, wide or json"
	}
	return "table or json"
}

// ofRun is what --pipeline is for where a run is named.
const ofRun = "pipeline of a run that has been removed from the cluster"

func (f *recordFlags) check() error {
	if f.output != "table" && f.output != "json" && (f.output != "wide" || !f.wide) {
		return usageError{fmt.Errorf("--output is %q: %s are allowed", f.output, strings.Replace(formats(f.wide), " or ", " and ", 1))}
	}
	return nil
}

const recordsHelp = `The records are read from the pipeline's bucket, which its installation in the
cluster names; AWS credentials are those of your environment.`

func newRuns() *cobra.Command {
	f := recordFlags{wide: true}
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List the runs of a pipeline, the latest first",
		Long: `Lists the runs of a pipeline, the latest first, those under way included. Runs
stay in the list after their Workflow has been removed from the cluster; their
name, with --pipeline, is enough for the other commands. With -o wide the list has
the UIDs, which tell runs of one name apart.

` + recordsHelp,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.pipeline == "" && f.dir == "":
				return usageError{errors.New("--pipeline is required")}
			case f.limit < 1:
				return usageError{fmt.Errorf("--limit is %d: at least 1 is needed", f.limit)}
			}
			if err := f.check(); err != nil {
				return err
			}
			runs, unread, err := f.runs(cmd.Context())
			if err != nil {
				return err
			}
			warnUnread(cmd.ErrOrStderr(), unread)
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), runs)
			}
			return writeRuns(cmd.OutOrStdout(), runs, time.Now(), f.output == "wide")
		},
	}
	f.register(cmd, "name of the pipeline")
	cmd.Flags().IntVar(&f.limit, "limit", defaultRuns, "how many runs to list")
	return cmd
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Look at one run",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", "run "+args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := recordFlags{}
	show := &cobra.Command{
		Use:   "show RUN",
		Short: "Show what happened in a run, stage by stage",
		Long: `Shows the record of a run: what it was made of, its stages, how long they took
and why they failed. With -o json it is the document of the published schema.

RUN is the name of the Workflow; of one that has been removed, its name or UID
with --pipeline.

` + recordsHelp,
		Args: exactArgs(1, "one argument: the run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			records, uid, err := f.records(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			run, err := records.Show(cmd.Context(), uid)
			if err != nil {
				return unrecorded(args[0], err)
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), run)
			}
			return writeRun(cmd.OutOrStdout(), run, time.Now())
		},
	}
	f.register(show, ofRun)
	cmd.AddCommand(show, newRunSchema())
	return cmd
}

func newRunSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON schema of a run's record",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(record.Schema())
			return err
		},
	}
}

func newEvents() *cobra.Command {
	f, tries := recordFlags{}, false
	cmd := &cobra.Command{
		Use:   "events RUN [STACK]",
		Short: "Print what CloudFormation said about a stack during a run",
		Long: `Prints the events of one stack, or of all stacks, that a run deployed, nested
stacks included, in the order they happened. A stack that was as wanted has none.
Of a stack that was deployed again, by a retry, they are those of the last time;
with --tries those of every time.

RUN is the name of the Workflow; of one that has been removed, its name or UID
with --pipeline.

` + recordsHelp,
		Args: runAndAtMostOne("stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			records, uid, err := f.records(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			stack := append(args, "")[1]
			read := records.Events
			if tries {
				read = records.TriedEvents
			}
			events, err := read(cmd.Context(), uid, stack)
			if err != nil {
				return err
			}
			if len(events) == 0 {
				return noEvents(cmd.Context(), records, args[0], uid, stack)
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), events)
			}
			return writeEvents(cmd.OutOrStdout(), events)
		},
	}
	f.register(cmd, ofRun)
	cmd.Flags().BoolVar(&tries, "tries", false, "the events of every try, the first one first")
	return cmd
}

// noEvents says why there is nothing to print.
func noEvents(ctx context.Context, records *record.Recorder, name, uid, stack string) error {
	if _, err := records.Show(ctx, uid); err != nil {
		return unrecorded(name, err)
	}
	all, err := records.Events(ctx, uid, "")
	if err != nil {
		return err
	}
	op := "find the events of run " + name
	if stack == "" || len(all) == 0 {
		return fault.Newf(fault.User, fault.EventsMissing, op, "See `aphex run show "+name+"`: stacks that were as wanted have no events", "no stack has any")
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Stack)
	}
	slices.Sort(names)
	return fault.Newf(fault.User, fault.EventsMissing, op, "Name one of them", "stack %s has none; there are events of %s", stack, joined(slices.Compact(names)))
}

func unrecorded(name string, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return fault.Newf(fault.User, fault.RunUnknown, "read the record of run "+name,
		"See `aphex runs`; the record is there once the run's first stage has begun", "the bucket has none")
}

// records opens the records among which a run's are, and returns its UID.
func (f *recordFlags) records(ctx context.Context, name string) (*record.Recorder, string, error) {
	bucket, err := f.open(ctx, name)
	if err != nil {
		return nil, "", err
	}
	return record.New(bucket), bucket.uid, nil
}

func (f *recordFlags) runs(ctx context.Context) ([]record.Run, []record.Unread, error) {
	if f.dir != "" {
		return f.localRuns(ctx)
	}
	client, err := f.cluster()
	if err != nil {
		return nil, nil, err
	}
	bucket, err := f.bucket(ctx, client, f.pipeline)
	if err != nil {
		return nil, nil, err
	}
	return record.New(bucket).Runs(ctx, f.limit)
}

// localRuns are those of `aphex task`, each of which has a bucket of its own.
func (f *recordFlags) localRuns(ctx context.Context) ([]record.Run, []record.Unread, error) {
	buckets, err := f.localBuckets()
	if err != nil {
		return nil, nil, err
	}
	runs, unread := []record.Run{}, []record.Unread(nil)
	for _, bucket := range buckets {
		found, damaged, err := record.New(bucket).Runs(ctx, f.limit)
		if err != nil {
			return nil, nil, err
		}
		unread = append(unread, damaged...)
		for _, run := range found {
			if f.pipeline == "" || run.Pipeline == f.pipeline {
				runs = append(runs, run)
			}
		}
	}
	slices.SortStableFunc(runs, func(a, b record.Run) int { return b.TriggeredAt.Compare(a.TriggeredAt) })
	return runs[:min(len(runs), f.limit)], unread, nil
}
