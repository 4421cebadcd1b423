package diff_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/diff"
)

// put stores an object in the staging bucket beside the recorder.
func (w *world) put(key, body string) {
	w.t.Helper()
	client := s3.NewFromConfig(shared.DirectConfig(w.target, region), func(o *s3.Options) { o.UsePathStyle = true })
	_, err := client.PutObject(w.t.Context(), &s3.PutObjectInput{
		Bucket: awssdk.String(fmt.Sprintf("cdk-hnb659fds-assets-%s-%s", w.target, region)), Key: awssdk.String(key), Body: strings.NewReader(body),
	})
	require.NoError(w.t, err)
}

// tool runs a program in the target account and returns what it prints.
func (w *world) tool(program string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env, cmd.Dir = shared.Environment(shared.DirectEndpoint(), w.target, region), w.dir
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, string(out))
	return string(out)
}

func TestChangeSet_AsksAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", oldData)
	w.forget()
	report := w.report(0, "--change-set")
	require.Equal(t, diff.ChangeSets, report.Strength)
	data, api := report.Stacks[0], report.Stacks[1]
	require.Equal(t, diff.Created, data.ChangeSet.Status)
	require.Equal(t, diff.Created, api.ChangeSet.Status)
	require.Contains(t, summary(data), "change resource Param replaced:yes", "another name is another parameter")
	require.Contains(t, summary(data), "change resource Role replaced:no")
	at := slices.IndexFunc(data.Changes, func(c diff.Change) bool { return c.ID == "Param" })
	said := data.Changes[at].CloudFormation
	require.Equal(t, "Modify", said.Action)
	require.Equal(t, "True", said.Replacement)
	require.Contains(t, said.Scope, "Properties")
	require.NotEmpty(t, said.Details)
	require.NotEmpty(t, said.PhysicalID)
	require.NotEmpty(t, data.Security, "access is told apart here as well")
	require.Equal(t, "Add", api.Changes[0].CloudFormation.Action)
	w.clean("shop-data")
	require.Len(t, w.calls("CreateChangeSet"), 2)
	require.Empty(t, w.calls("PutObject"), "both templates fit into a request")
	for _, c := range w.calls("CreateChangeSet") {
		require.Regexp(t, `^aphex-diff-[0-9a-f]{16}$`, c.Form.Get("ChangeSetName"))
		require.Equal(t, w.roleARN("cfn-exec"), c.Form.Get("RoleARN"), "it is what a deployment sends")
	}
	table, _, _ := w.run("--change-set", "--stack", "shop-data")
	require.Contains(t, table, "REPLACED")
	w.clean("shop-data")
}

func TestChangeSet_TooLargeForARequestIsUploaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.replace("infra/assembly/data.template.json", `"Value": "one"`, `"Value": "`+strings.Repeat("x", 60_000)+`"`)
	w.replace("infra/assembly/api.template.json", `"Value": "copy"`, `"Value": "`+strings.Repeat("y", 60_000)+`"`)
	report := w.report(0, "--change-set")
	for _, s := range report.Stacks {
		require.Equal(t, diff.Created, s.ChangeSet.Status, s.ChangeSet.Reason)
	}
	require.Len(t, w.calls("PutObject"), 2, "an asset of the app, and one that is none")
	w.clean()
	w.forget()
	w.report(0)
	require.Empty(t, w.calls("PutObject"), "comparing templates uploads nothing, however large")
}

func TestChangeSet_RefusedOnesLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", oldData)
	w.replace("infra/assembly/data.template.json", `"AWS::SNS::Topic"`, `"AWS::Nobody::Knows"`)
	w.replace("infra/assembly/api.template.json", `"AWS::SSM::Parameter"`, `"AWS::Nobody::Knows"`)
	out, log, code := w.run("--change-set", "--owner", "17")
	require.Equal(t, 1, code, log)
	require.Contains(t, out, "CloudFormation refuses the change set")
	require.Contains(t, out, "Properties.Name", "what differs is shown all the same")
	require.Contains(t, log, "[ChangeSetFailed]")
	w.clean("shop-data")
}

func TestChangeSet_StacksThatTakeNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := `{"Resources": {"Bad": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "Bogus", "Value": "x"}}}}`
	_, err := w.client().CreateStack(t.Context(), &cfnsdk.CreateStackInput{StackName: awssdk.String("shop-data"), TemplateBody: awssdk.String(bad)})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.status("shop-data") == "ROLLBACK_COMPLETE" }, time.Minute, 50*time.Millisecond)
	w.forget()
	data := w.report(0, "--change-set", "--stack", "shop-data").Stacks[0]
	require.True(t, data.New)
	require.Equal(t, diff.NotMade, data.ChangeSet.Status)
	require.Contains(t, data.ChangeSet.Reason, "ROLLBACK_COMPLETE")
	require.Empty(t, w.calls("CreateChangeSet"))
	require.Equal(t, "ROLLBACK_COMPLETE", w.status("shop-data"), "it is not for a preview to delete it")
}

// review makes a stack that consists of a change set of somebody else.
func (w *world) review(stack, set string) {
	w.t.Helper()
	_, err := w.client().CreateChangeSet(w.t.Context(), &cfnsdk.CreateChangeSetInput{
		StackName: awssdk.String(stack), ChangeSetName: awssdk.String(set), ChangeSetType: cfntypes.ChangeSetTypeCreate, TemplateBody: awssdk.String(apiTemplate),
	})
	require.NoError(w.t, err)
}

func TestChangeSet_WhatOthersMadeStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.review("shop-api", "somebody-else")
	require.Equal(t, diff.Created, w.report(0, "--change-set", "--stack", "shop-api").Stacks[0].ChangeSet.Status)
	require.Equal(t, []string{"somebody-else"}, w.changeSets("shop-api"))
	require.Equal(t, "REVIEW_IN_PROGRESS", w.status("shop-api"))
	require.Empty(t, w.calls("DeleteStack"))
}

func TestChangeSet_LostAnswersLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"CreateChangeSet", "DeleteChangeSet", "DeleteStack"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.deploy("shop-data", oldData)
			w.once(operation, lose)
			report := w.report(0, "--change-set")
			for _, s := range report.Stacks {
				require.Equal(t, diff.Created, s.ChangeSet.Status)
			}
			require.Equal(t, 1, w.faults())
			w.clean("shop-data")
		})
	}
}

func TestChangeSet_InterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"CreateChangeSet", "DescribeChangeSet"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := w.held(t, operation)
			cmd, out, log := w.command("--change-set", "--stack", "shop-api")
			require.NoError(t, cmd.Start())
			g.await(t.Context(), t)
			w.once("DescribeChangeSet", linger) // or the command may be done before it notices
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			close(g.release)
			require.Error(t, cmd.Wait())
			require.Equal(t, 1, cmd.ProcessState.ExitCode(), log.String())
			require.Empty(t, out.String())
			require.Contains(t, log.String(), "[Cancelled]")
			require.NotEmpty(t, w.calls("CreateChangeSet"))
			w.clean()
		})
	}
}

func TestChangeSet_KilledIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"DescribeChangeSet", "DeleteStack", "DeleteChangeSet"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stack, live := "shop-api", []string(nil)
			if operation == "DeleteChangeSet" { // of a stack that is there
				w.deploy("shop-data", oldData)
				stack, live = "shop-data", []string{"shop-data"}
			}
			g := w.held(t, operation)
			cmd, _, _ := w.command("--change-set", "--stack", stack)
			require.NoError(t, cmd.Start())
			g.await(t.Context(), t)

			second, _, log := w.command("--change-set", "--stack", stack)
			require.Error(t, second.Run())
			require.Equal(t, 75, second.ProcessState.ExitCode(), "one at a time: %s", log.String())

			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())
			left := w.changeSets(stack)
			require.Len(t, left, 1)
			require.True(t, strings.HasPrefix(left[0], "aphex-diff-"))

			w.report(0, "--stack", stack)
			require.Equal(t, left, w.changeSets(stack), "comparing templates does not even sweep")

			var out string
			out, next, code := w.run("--change-set", "--stack", stack)
			require.Equal(t, 0, code, next)
			require.Contains(t, next, "removing change set "+left[0])
			require.NotEmpty(t, out)
			w.clean(live...)
		})
	}
}

// Two previews of different owners at once: neither removes what the other
// needs, and the last one takes the stack away.
func TestChangeSet_TwoOwnersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.held(t, "DescribeChangeSet")
	first, firstOut, log := w.command("--change-set", "--stack", "shop-api", "--owner", "one")
	require.NoError(t, first.Start())
	g.await(t.Context(), t)
	out, second, code := w.run("--change-set", "--stack", "shop-api", "--owner", "two")
	require.Equal(t, 0, code, second)
	require.Equal(t, "REVIEW_IN_PROGRESS", w.status("shop-api"), "the first still needs it")
	close(g.release)
	require.NoError(t, first.Wait(), log.String())
	require.Equal(t, out, firstOut.String())
	w.clean()
}
