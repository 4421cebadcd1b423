package deploy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func TestGroup_WholeAppInTheOrderOfItsAssembly(t *testing.T) {
	t.Parallel()
	data, api := &assembly.Stack{HierarchicalID: "Prod/Data", Name: "Prod-Data"}, &assembly.Stack{HierarchicalID: "Api", Name: "Api"}
	g := group{app: "pipeline-infra", whole: true}
	got, err := g.pick(&assembly.Assembly{Stacks: []*assembly.Stack{data, api}})
	require.NoError(t, err)
	require.Equal(t, []*assembly.Stack{data, api}, got)

	_, err = g.pick(&assembly.Assembly{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackUnknown, Err: errors.New("none")})
	require.Contains(t, fault.Message(err), "pipeline-infra")

	twin := &assembly.Stack{HierarchicalID: "Test/Data", Name: data.Name}
	_, err = g.pick(&assembly.Assembly{Stacks: []*assembly.Stack{data, api, twin}})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackAmbiguous, Err: errors.New("twice")})
	require.Contains(t, fault.Message(err), "Prod/Data and Test/Data")
}

// viewed is a workspace that notes what is asked of it.
type viewed struct{ resets []string }

func (*viewed) Prepare(context.Context, workspace.Source, io.Writer) error {
	return errors.New("the caller has done that")
}
func (*viewed) File(context.Context, string) ([]byte, error) { return nil, errors.New("no") }

func (*viewed) IsAncestor(context.Context, string, string) (bool, error) {
	return false, errors.New("no")
}

func (v *viewed) Reset(_ context.Context, key string, _ io.Writer) error {
	v.resets = append(v.resets, key)
	return nil
}

// The app is synthesized from the commit and the build's snapshot with the
// artifacts that were published; without an identity nothing is done.
func TestDeployApp_SeesCommitSnapshotAndArtifacts(t *testing.T) {
	t.Parallel()
	files, artifacts := &viewed{}, &passing{}
	s := New(Config{Workspace: files, Artifacts: artifacts, Base: func(context.Context) (aws.Config, error) {
		return aws.Config{}, fault.Newf(fault.User, fault.CredentialsMissing, "find credentials", "", "none")
	}})
	req := task.Request{Run: task.Run{UID: "u2"}, Predecessor: "u1"}
	env := task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}}
	_, err := s.DeployApp(t.Context(), req, env, App{Name: pipeline.Own, Folder: "pipeline-infra", Region: "eu-west-1", Artifacts: "dist"})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CredentialsMissing, Err: errors.New("none")})
	require.Equal(t, []string{record.SnapshotKey("u1")}, files.resets)
	require.Equal(t, passing{uid: "u1", folder: "dist"}, *artifacts)
}

// passing is a verifier that finds what was published.
type passing struct{ uid, folder string }

func (p *passing) Verify(_ context.Context, uid, folder string, _ io.Writer) error {
	p.uid, p.folder = uid, folder
	return nil
}
