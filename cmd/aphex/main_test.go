package main

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"aphex": main})
}

// TestScripts runs the command line as people do: each script of
// testdata/script in a folder and an environment of its own.
func TestScripts(t *testing.T) {
	t.Parallel()
	git := gitserver.New(t, gitserver.Config{})
	private := gitserver.New(t, gitserver.Config{Username: "ada", Password: "correct-horse-battery"})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitCode,
			"repo": func(ts *testscript.TestScript, _ bool, args []string) {
				repository(t.Context(), ts, git, args)
				ts.Setenv("REPO", "file://"+git.Path(ts.Name()))
			},
			"private-repo": func(ts *testscript.TestScript, _ bool, args []string) {
				repository(t.Context(), ts, private, args)
				ts.Setenv("REPO", private.URL(ts.Name()))
			},
		},
	})
}

// exitCode is the script command `code N PROGRAM ARG...`: it runs a program,
// which must exit with N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// repository is the script commands `repo DIR` and `private-repo DIR`: it
// commits the files of a folder to a repository of the script and sets COMMIT
// to the commit, REPO to the repository's URL.
func repository(ctx context.Context, ts *testscript.TestScript, git *gitserver.Server, args []string) {
	if len(args) != 1 {
		ts.Fatalf("one argument is needed: the folder")
	}
	commit, err := git.Push(ctx, ts.Name(), gitserver.DefaultBranch, ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("COMMIT", commit)
}
