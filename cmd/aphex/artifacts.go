package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// isCommit tells a commit, which may be abbreviated, from a run.
var isCommit = regexp.MustCompile(`^[0-9a-f]{7,40}$`)

const artifactsHelp = `COMMIT is a commit that was built, at least its first 7 digits, with --pipeline.
RUN is the name of the Workflow; of one that has been removed, its name or UID
with --pipeline.

The lists are read from the pipeline's bucket, which its installation in the
cluster names; AWS credentials are those of your environment.`

func newArtifacts() *cobra.Command {
	f := recordFlags{}
	cmd := &cobra.Command{
		Use:   "artifacts COMMIT|RUN",
		Short: "List and download what builds have published",
		Long: `Lists the artifacts that builds of a commit, or the build of one run, have
published. What another build of the commit made differently is listed too.

` + artifactsHelp,
		Args: exactArgs(1, "one argument: the commit or run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			found, err := f.artifacts(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			list := make([]record.Artifact, len(found))
			for i := range found {
				list[i] = found[i].Artifact
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			return writeArtifacts(cmd.OutOrStdout(), list)
		},
	}
	f.register(cmd, ofCommit)
	cmd.AddCommand(newArtifactsGet())
	return cmd
}

// ofCommit is what --pipeline is for where artifacts are asked for.
const ofCommit = "pipeline of the commit, or of a run that has been removed from the cluster"

func newArtifactsGet() *cobra.Command {
	f, d := lookupFlags{}, download{}
	cmd := &cobra.Command{
		Use:   "get COMMIT|RUN [PATH...]",
		Short: "Download artifacts and verify their SHA-256",
		Long: `Downloads artifacts into a folder, all or those at and below the given paths, and
verifies that their bytes are the published ones. A file gets its name when it
is complete and verified. A file that is there with other bytes is not replaced
without --force; nothing is written outside of the folder.

Of a path that builds of one commit made differently, the first build's is
taken; give the run to get exactly what that has built.

` + artifactsHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("expected a commit or run and paths, got no arguments")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := f.artifacts(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			chosen, err := choose(args[0], found, args[1:])
			if err != nil {
				return err
			}
			for _, other := range chosen.passedOver {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "note   %s of run %s has other bytes: name that run to get it\n", plain(other.Path), plain(other.WorkflowName))
			}
			d.out = cmd.OutOrStdout()
			return d.get(cmd.Context(), chosen.artifacts)
		},
	}
	f.registerFrom(cmd.Flags(), "pipeline", ofCommit, "from")
	cmd.Flags().StringVar(&d.dir, "dir", ".", "folder to write to; it is made if missing")
	cmd.Flags().BoolVar(&d.force, "force", false, "replace files that have other bytes")
	return cmd
}

// stored is an artifact and where its bytes are.
type stored struct {
	record.Artifact

	bucket objects
}

func storedIn(bucket objects, artifacts []record.Artifact) []stored {
	list := make([]stored, len(artifacts))
	for i := range artifacts {
		list[i] = stored{artifacts[i], bucket}
	}
	return list
}

// artifacts are those of a run or commit, sorted by path; the first built of
// several for one path comes first.
func (f *lookupFlags) artifacts(ctx context.Context, name string) ([]stored, error) {
	if isCommit.MatchString(name) {
		return f.ofCommit(ctx, name)
	}
	bucket, err := f.open(ctx, name)
	if err != nil {
		return nil, err
	}
	records := record.New(bucket)
	list, err := records.Artifacts(ctx, bucket.uid)
	if !errors.Is(err, store.ErrNotFound) {
		return storedIn(bucket, list), err
	}
	if _, err := records.Run(ctx, bucket.uid); err != nil {
		return nil, unrecorded(name, err)
	}
	return nil, fault.Newf(fault.User, fault.ArtifactMissing, "read the artifacts of run "+name,
		"See `aphex run show "+name+"`: they are there once the build commands have ended well", "its build has not published any")
}

// ofCommit are the artifacts of all builds of a commit.
func (f *lookupFlags) ofCommit(ctx context.Context, commit string) ([]stored, error) {
	buckets, err := f.commitBuckets(ctx)
	if err != nil {
		return nil, err
	}
	var list []stored
	var commits []string
	for _, bucket := range buckets {
		found, fitting, err := record.New(bucket).ArtifactsOf(ctx, commit)
		if err != nil {
			return nil, err
		}
		list, commits = append(list, storedIn(bucket, found)...), append(commits, fitting...)
	}
	slices.Sort(commits)
	switch commits = slices.Compact(commits); len(commits) {
	case 0:
		return nil, fault.Newf(fault.User, fault.ArtifactMissing, "find the artifacts of commit "+commit,
			"Check the commit and the pipeline; `aphex runs` lists what was built", "no build of it has published any")
	case 1:
	default:
		return nil, usageError{fmt.Errorf("commit %s is not unique: %s", commit, joined(commits))}
	}
	if len(buckets) > 1 { // each is sorted by itself, and may have what another has
		slices.SortStableFunc(list, func(a, b stored) int {
			return cmp.Or(strings.Compare(a.Path, b.Path), a.Timestamp.Compare(b.Timestamp))
		})
		list = slices.CompactFunc(list, func(a, b stored) bool { return a.Path == b.Path && a.Checksum == b.Checksum })
	}
	return list, nil
}

// commitBuckets are where builds of a commit may be.
func (f *lookupFlags) commitBuckets(ctx context.Context) ([]objects, error) {
	switch {
	case f.dir != "":
		return f.localBuckets()
	case f.pipeline == "":
		return nil, usageError{errors.New("--pipeline is required with a commit")}
	}
	client, err := f.cluster()
	if err != nil {
		return nil, err
	}
	bucket, err := f.bucket(ctx, client, f.pipeline)
	if err != nil {
		return nil, err
	}
	return []objects{bucket}, nil
}

// choice is what is downloaded.
type choice struct {
	artifacts []stored
	// passedOver have the path of another that is downloaded.
	passedOver []stored
}

// choose picks one artifact of each path at or below the given ones, of all if
// none is given.
func choose(name string, list []stored, paths []string) (choice, error) {
	var c choice
	used := make([]bool, len(paths))
	var there []string
	for i, artifact := range list {
		wanted := len(paths) == 0
		for n, given := range paths {
			given = strings.TrimSuffix(strings.TrimPrefix(given, "./"), "/")
			if artifact.Path == given || strings.HasPrefix(artifact.Path, given+"/") {
				wanted, used[n] = true, true
			}
		}
		again := i > 0 && list[i-1].Path == artifact.Path
		if !again {
			there = append(there, artifact.Path)
		}
		switch {
		case !wanted:
		case again:
			c.passedOver = append(c.passedOver, artifact)
		default:
			c.artifacts = append(c.artifacts, artifact)
		}
	}
	n := slices.Index(used, false)
	if n < 0 {
		return c, nil
	}
	known := "there are none"
	if len(there) > 0 {
		known = "there are " + someOf(there)
	}
	return choice{}, fault.Newf(fault.User, fault.ArtifactMissing, "find artifact "+paths[n]+" of "+name,
		"Name files or folders as `aphex artifacts "+name+"` lists them", "no build has published it; %s", known)
}
