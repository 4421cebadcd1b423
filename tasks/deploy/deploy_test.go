package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func TestOutputsDocument_HasTheShapeOfTheCLI(t *testing.T) {
	t.Parallel()
	got, err := outputsDocument(map[string]map[string]string{"b": {}, "a": {"Url": "https://x?a=1&b=<2>"}})
	require.NoError(t, err)
	require.Equal(t, "{\n  \"a\": {\n    \"Url\": \"https://x?a=1&b=<2>\"\n  },\n  \"b\": {}\n}", string(got))
	require.True(t, json.Valid(got))
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{400 * time.Millisecond: "0 s", 12 * time.Second: "12 s", 185 * time.Second: "3 min 5 s"} {
		require.Equal(t, want, seconds(d))
	}
}

// apps answers FindApp with the first folder of the path.
type apps struct{ Synthesizer }

func (apps) FindApp(_ context.Context, path string) (string, error) {
	app, _, _ := strings.Cut(path, "/")
	if app == "none" {
		return "", fault.Newf(fault.User, fault.AppMissing, "find the app", "", "no cdk.json above %q", path)
	}
	return app, nil
}

func TestGroups_KeepTheConfiguredOrder(t *testing.T) {
	t.Parallel()
	stacks := []pipeline.Stack{{Name: "a1", Path: "a/lib"}, {Name: "a2", Path: "a"}, {Name: "b1", Path: "b"}, {Name: "a3", Path: "a"}}
	d := &deployment{stage: New(Config{Synth: apps{}}), target: pipeline.Environment{Stacks: stacks}}
	got, err := d.groups(t.Context())
	require.NoError(t, err)
	all := []pipeline.Stack{stacks[0], stacks[1], stacks[3]}
	require.Equal(t, []group{{app: "a", stacks: stacks[:2], all: all}, {app: "b", stacks: stacks[2:3], all: stacks[2:3]}, {app: "a", stacks: stacks[3:], all: all}}, got)

	d.target.Stacks = append(d.target.Stacks, pipeline.Stack{Name: "x", Path: "none"})
	_, err = d.groups(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AppMissing, Err: errors.New("x")})
}

func TestEvent_Line(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &deployment{env: task.Env{Output: &out, Logger: slog.New(slog.DiscardHandler)}, target: pipeline.Environment{Name: "dev"}}
	at := time.Date(2026, 11, 23, 9, 5, 7, 0, time.UTC)
	d.event(cfn.Event{Time: at, Stack: "shop-api", Status: "CREATE_COMPLETE", Type: "AWS::SSM::Parameter", LogicalID: "Param", Path: "shop-api/Param/Resource"})
	d.event(cfn.Event{Time: at, Stack: "shop-api", Status: "CREATE_FAILED", Type: "AWS::X::Y", LogicalID: "A/B", Reason: "no"})
	require.Equal(t, "09:05:07 dev shop-api CREATE_COMPLETE AWS::SSM::Parameter Param (shop-api/Param/Resource)\n09:05:07 dev shop-api CREATE_FAILED AWS::X::Y A/B: no\n", out.String())
}

// still is a workspace of one configuration.
type still struct{ config string }

func (still) Prepare(context.Context, workspace.Source, io.Writer) error { return nil }
func (s still) File(context.Context, string) ([]byte, error)             { return []byte(s.config), nil }
func (still) Reset(context.Context, string, io.Writer) error             { return nil }
func (still) IsAncestor(context.Context, string, string) (bool, error)   { return false, nil }

// refusing is a guard that another run has overtaken.
type refusing struct{ entered []string }

func (*refusing) Check(context.Context, revision.Ancestry, string, string, bool) (revision.Decision, error) {
	return revision.Decision{Superseded: true, Previous: revision.State{Commit: strings.Repeat("c", 40), Run: "shop-2"}}, nil
}

func (g *refusing) Enter(_ context.Context, _ string, _, next revision.State) error {
	g.entered = append(g.entered, next.Phase)
	return nil
}

func TestRun_PassedOverAsksNobody(t *testing.T) {
	t.Parallel()
	config := "version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: eu-west-1\n  account: \"111111111111\"\n  stacks:\n  - {name: a, path: a}\n"
	guard := &refusing{}
	s := New(Config{Workspace: still{config: config}, Synth: apps{}, Guard: guard, Base: func(context.Context) (aws.Config, error) {
		return aws.Config{}, errors.New("nobody may ask for credentials")
	}})
	req := task.Request{Environment: "dev", Commit: strings.Repeat("b", 40), ConfigPath: "aphex-config.yaml"}
	env := task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}}
	got, err := s.Run(t.Context(), req, env)
	require.NoError(t, err)
	require.Equal(t, string(fault.Superseded), got.Reason)
	for _, name := range task.Outputs(task.StageDeployEnv) {
		if name != task.OutputLogURL {
			require.Contains(t, got.Outputs, name)
		}
	}
	require.Empty(t, guard.entered)

	req.Environment = "gone"
	got, err = s.Run(t.Context(), req, env)
	require.NoError(t, err)
	require.Equal(t, string(fault.TopologyChanged), got.Reason)
}

// unlike is a verifier that finds other artifacts than were published.
type unlike struct{ uid, folder string }

func (u *unlike) Verify(_ context.Context, uid, folder string, _ io.Writer) error {
	u.uid, u.folder = uid, folder
	return fault.Newf(fault.System, fault.SnapshotInvalid, "verify the artifacts", "", "they differ")
}

func TestRun_OtherArtifactsThanPublishedAreNotDeployed(t *testing.T) {
	t.Parallel()
	config := "version: \"1.0\"\nbuild:\n  artifacts: dist\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: eu-west-1\n  account: \"111111111111\"\n  stacks:\n  - {name: a, path: a}\n"
	verifier := &unlike{}
	s := New(Config{Workspace: still{config: config}, Synth: apps{}, Artifacts: verifier, Base: func(context.Context) (aws.Config, error) {
		return aws.Config{}, errors.New("nobody may ask for credentials")
	}})
	req := task.Request{Run: task.Run{UID: "u2"}, Predecessor: "u1", Environment: "dev", Commit: strings.Repeat("b", 40), ConfigPath: "aphex-config.yaml"}
	_, err := s.Run(t.Context(), req, task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
	require.Equal(t, unlike{uid: "u1", folder: "dist"}, *verifier, "the build of a successor is its predecessor's")
}

// handed answers which successor a run has.
type handed struct {
	name string
	err  error
	run  handover.Run
}

func (h *handed) Successor(_ context.Context, run handover.Run) (string, error) {
	h.run = run
	return h.name, h.err
}

func TestRun_HandedOverIsPassedOver(t *testing.T) {
	t.Parallel()
	successors := &handed{name: "shop-1-s0123456789"}
	s := New(Config{Successors: successors}) // it needs nothing else
	req := task.Request{Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Pipeline: "shop", Environment: "dev"}
	env := task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}}
	got, err := s.Run(t.Context(), req, env)
	require.NoError(t, err)
	require.Equal(t, string(fault.HandedOver), got.Reason)
	require.Contains(t, got.Message, "handed over to run shop-1-s0123456789")
	require.Equal(t, "false", got.Outputs[task.OutputDeployed])
	require.Equal(t, handover.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1", Pipeline: "shop"}, successors.run)

	successors.err = fault.Newf(fault.Transient, fault.KubernetesRejected, "read the run", "", "away")
	_, err = s.Run(t.Context(), req, env)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected}, "it does not deploy what may have been handed over")
}
