package argo_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// request is a call as the agent of Argo v3.7.18 sends it.
func request(tb testing.TB, change func(envelope, body map[string]any)) string {
	tb.Helper()
	body := map[string]any{
		"stage": "deploy-env", "pipeline": "shop", "environment": "dev", "node": "shop-x7k2p.deploy-dev", "topology": "sha256:00",
		"config": "aphex-config.yaml", "repo": "https://git.test/shop.git", "commit": strings.Repeat("a", 40), "branch": "main",
		"allowOlder": "true", "force": "true", "attempt": "2",
	}
	envelope := map[string]any{
		"workflow": map[string]any{"metadata": map[string]any{"name": "shop-x7k2p", "namespace": "shop", "uid": "u-1"}},
		"template": map[string]any{
			"name": "deploy-dev", "inputs": map[string]any{}, "timeout": "90m",
			"outputs": map[string]any{"parameters": []any{map[string]any{"name": "deployed", "globalName": "dev-deployed", "valueFrom": map[string]any{"supplied": map[string]any{}}}}},
			"plugin":  map[string]any{"aphex": body},
		},
	}
	if change != nil {
		change(envelope, body)
	}
	raw, err := json.Marshal(envelope)
	require.NoError(tb, err)
	return string(raw)
}

func TestDecode_FullBody(t *testing.T) {
	t.Parallel()
	call, ours, err := argo.Decode(strings.NewReader(request(t, nil)))
	require.NoError(t, err)
	require.True(t, ours)
	require.Equal(t, task.Request{
		Run: task.Run{Namespace: "shop", Name: "shop-x7k2p", UID: "u-1"}, Stage: "deploy-env", Node: "shop-x7k2p.deploy-dev", Attempt: 2,
		Pipeline: "shop", Environment: "dev", Topology: "sha256:00", ConfigPath: "aphex-config.yaml",
		RepoURL: "https://git.test/shop.git", Commit: strings.Repeat("a", 40), Branch: "main", AllowOlder: true, Force: true,
	}, call.Request)
	require.Equal(t, []argo.Declared{{Name: "deployed", GlobalName: "dev-deployed"}}, call.Outputs)
	require.Equal(t, "shop-x7k2p.deploy-dev(2)", call.NodeName(), "an attempt is a node of its own")
	require.True(t, strings.HasPrefix(call.Digest, "sha256:"))
}

func TestDecode_NotificationsOfFinish(t *testing.T) {
	t.Parallel()
	text := `{"channels":[{"type":"slack","target":"ssm:/slack"}]}`
	call, _, err := argo.Decode(strings.NewReader(request(t, func(_, b map[string]any) {
		b["stage"], b["status"], b["notifications"] = "finish", "Failed", text
		delete(b, "environment")
	})))
	require.NoError(t, err)
	require.Equal(t, text, call.Request.Notifications)
}

func TestDecode_WithoutRetryStrategy(t *testing.T) {
	t.Parallel()
	call, _, err := argo.Decode(strings.NewReader(request(t, func(_, b map[string]any) { delete(b, "attempt"); delete(b, "allowOlder"); delete(b, "force") })))
	require.NoError(t, err)
	require.Zero(t, call.Request.Attempt)
	require.False(t, call.Request.AllowOlder)
	require.False(t, call.Request.Force)
	require.Equal(t, call.Request.Node, call.NodeName())
}

func TestDecode_LooseScalars(t *testing.T) {
	t.Parallel()
	call, _, err := argo.Decode(strings.NewReader(request(t, func(_, b map[string]any) { b["attempt"], b["allowOlder"] = 3, true })))
	require.NoError(t, err)
	require.Equal(t, 3, call.Request.Attempt)
	require.True(t, call.Request.AllowOlder)
}

func TestDecode_Foreign(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"", "null", "[]", "not json", `{}`, `{"template":{}}`, `{"template":{"plugin":null}}`, `{"template":{"plugin":"aphex"}}`,
		`{"template":{"plugin":["aphex"]}}`, `{"template":{"plugin":{"hello":{}}}}`, `{"template":{"plugin":{"Aphex":{}}}}`, `{"template":7}`,
	} {
		_, ours, err := argo.Decode(strings.NewReader(raw))
		require.NoError(t, err, raw)
		require.False(t, ours, raw)
	}
}

func TestDecode_Refusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(envelope, body map[string]any)
		reason fault.Reason
		says   string
	}{
		"unknown key":         {func(_, b map[string]any) { b["stagee"] = "x" }, fault.BadRequest, `"stagee" is not a key`},
		"other case":          {func(_, b map[string]any) { delete(b, "stage"); b["Stage"] = "build" }, fault.BadRequest, `"Stage" is not a key`},
		"missing key":         {func(_, b map[string]any) { delete(b, "topology") }, fault.BadRequest, "topology is missing"},
		"empty node":          {func(_, b map[string]any) { b["node"] = "" }, fault.BadRequest, "node is empty"},
		"foreign node":        {func(_, b map[string]any) { b["node"] = "other.build" }, fault.BadRequest, `must be a node of workflow "shop-x7k2p"`},
		"yaml turned no":      {func(_, b map[string]any) { b["branch"] = false }, fault.BadRequest, "branch is false: it must be a string, so quote it"},
		"null":                {func(_, b map[string]any) { b["branch"] = nil }, fault.BadRequest, "branch is null"},
		"object":              {func(_, b map[string]any) { b["repo"] = map[string]any{} }, fault.BadRequest, "repo is an object"},
		"predecessor":         {func(_, b map[string]any) { b["predecessor"] = "../other" }, fault.BadRequest, `predecessor is "../other": it must be the UID of a run`},
		"force":               {func(_, b map[string]any) { b["force"] = "always" }, fault.BadRequest, `force is "always": it must be true or false`},
		"bool":                {func(_, b map[string]any) { b["allowOlder"] = "yes" }, fault.BadRequest, `allowOlder is "yes": it must be true or false`},
		"attempt":             {func(_, b map[string]any) { b["attempt"] = "-1" }, fault.BadRequest, "attempt is"},
		"attempt too large":   {func(_, b map[string]any) { b["attempt"] = "99999999999999999999" }, fault.BadRequest, "attempt is"},
		"environment missing": {func(_, b map[string]any) { delete(b, "environment") }, fault.BadRequest, "stage deploy-env needs it"},
		"status missing":      {func(_, b map[string]any) { b["stage"] = "finish" }, fault.BadRequest, "stage finish needs it"},
		"body is a list":      {func(e, _ map[string]any) { setBody(e, []any{}) }, fault.BadRequest, "plugin.aphex is a list"},
		"body is null":        {func(e, _ map[string]any) { setBody(e, nil) }, fault.BadRequest, "plugin.aphex is null"},
		"no uid":              {func(e, _ map[string]any) { e["workflow"] = map[string]any{"metadata": map[string]any{"name": "a"}} }, fault.BadRequest, "all three are needed"},
		"odd workflow":        {func(e, _ map[string]any) { e["workflow"] = 7 }, fault.BadRequest, "not of the shape"},
		"tag":                 {func(_, b map[string]any) { b["attempt"] = "{{retries}}" }, fault.UnresolvedTag, "attempt still contains the tag {{retries}}"},
		"tag inside":          {func(_, b map[string]any) { b["commit"] = "x{{body.after}}" }, fault.UnresolvedTag, "{{body.after}}"},
		"nested too deeply":   {func(_, b map[string]any) { b["x"] = nested(64) }, fault.BadRequest, "nested more than 64 levels deep"},
		"deep elsewhere":      {func(e, _ map[string]any) { e["template"].(map[string]any)["x"] = nested(64) }, fault.BadRequest, "nested more than 64 levels deep"},
		"tag in unknown key":  {func(_, b map[string]any) { b["x"] = map[string]any{"y": "{{aphex.z}}"} }, fault.UnresolvedTag, "{{aphex.z}}"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, ours, err := argo.Decode(strings.NewReader(request(t, c.change)))
			require.True(t, ours)
			require.ErrorContains(t, err, c.says)
			f := fault.From(err)
			require.Equal(t, c.reason, f.Reason)
			require.Equal(t, fault.User, f.Class)
			require.NotEmpty(t, f.Remedy)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// nested returns lists within lists, n deep.
func nested(n int) any {
	v := any([]any{})
	for range n - 1 {
		v = []any{v}
	}
	return v
}

// How deep other plugins' templates are is none of our business.
func TestDecode_ForeignAndDeep(t *testing.T) {
	t.Parallel()
	_, ours, err := argo.Decode(strings.NewReader(`{"template":{"plugin":{"hello":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}}}`))
	require.NoError(t, err)
	require.False(t, ours)
}

func setBody(envelope map[string]any, v any) {
	envelope["template"].(map[string]any)["plugin"] = map[string]any{"aphex": v}
}

func TestDecode_ReportsEverything(t *testing.T) {
	t.Parallel()
	_, _, err := argo.Decode(strings.NewReader(request(t, func(_, b map[string]any) {
		delete(b, "topology")
		b["colour"], b["attempt"], b["branch"] = "red", "x", 1
	})))
	for _, finding := range []string{"topology is missing", `"colour" is not a key`, `attempt is "x"`, "branch is 1"} {
		require.ErrorContains(t, err, finding)
	}
}

func TestReply_Bytes(t *testing.T) {
	t.Parallel()
	for want, reply := range map[string]argo.Reply{
		`{}`:                            argo.NotMine(),
		`{"node":{},"requeue":"1s"}`:    argo.Quiet(time.Second),
		`{"node":{},"requeue":"250ms"}`: argo.Quiet(250 * time.Millisecond),
		`{"node":{"phase":"Running","message":"m"},"requeue":"1s"}`:                                                      argo.Progress("m", time.Second),
		`{"node":{"phase":"Succeeded","message":"m","outputs":{"parameters":[{"name":"a","value":""}],"exitCode":"0"}}}`: argo.Final(argo.Succeeded, "m", &argo.Outputs{Parameters: []argo.Parameter{{Name: "a"}}, ExitCode: "0"}),
	} {
		require.Equal(t, want, string(reply.Encode()))
	}
	require.False(t, argo.NotMine().IsFinal())
	require.False(t, argo.Quiet(time.Second).IsFinal())
	require.False(t, argo.Progress("m", time.Second).IsFinal())
	require.True(t, argo.Final(argo.Failed, "m", nil).IsFinal())
}

// FuzzDecode: whatever comes in, Decode neither panics nor lets a body through
// that is not complete; and what it lets through it has understood: written
// down again, it reads the same.
func FuzzDecode(f *testing.F) {
	f.Add(request(f, nil))
	f.Add(request(f, func(_, b map[string]any) { b["attempt"] = "{{retries}}" }))
	f.Add(request(f, func(_, b map[string]any) { b["attempt"], b["allowOlder"], b["predecessor"] = 3, true, "u-0" }))
	f.Add(request(f, func(_, b map[string]any) { b["x"] = nested(80) }))
	f.Add(request(f, func(e, _ map[string]any) { setBody(e, "x") }))
	f.Add(`{"template":{"plugin":{"aphex":{"stage":"` + "\u0000" + `"}}}}`)
	f.Add(`{"template":{"plugin":{"aphex":{"stage":"a","stage":"b"},"APHEX":{}}}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		bounded.Here(t)
		call, ours, err := argo.Decode(strings.NewReader(raw))
		switch {
		case !ours:
			require.NoError(t, err)
			require.Equal(t, argo.Call{}, call)
		case err != nil:
			require.Contains(t, []fault.Reason{fault.BadRequest, fault.UnresolvedTag}, fault.From(err).Reason)
			require.NotEmpty(t, fault.From(err).Remedy)
		default:
			checkAccepted(t, &call)
		}
	})
}

func checkAccepted(t *testing.T, call *argo.Call) {
	t.Helper()
	r := call.Request
	for _, needed := range []string{r.Stage, r.Node, r.Pipeline, r.Topology, r.ConfigPath, r.Run.UID, r.Run.Name, r.Run.Namespace} {
		require.NotEmpty(t, needed)
	}
	require.True(t, strings.HasPrefix(r.Node, r.Run.Name))
	require.GreaterOrEqual(t, r.Attempt, 0)
	require.NotContains(t, r.Commit, "{{x}}")
	again, ours, err := argo.Decode(strings.NewReader(request(t, func(e, b map[string]any) {
		clear(b)
		for key, value := range map[string]string{
			"stage": r.Stage, "pipeline": r.Pipeline, "environment": r.Environment, "node": r.Node, "topology": r.Topology, "config": r.ConfigPath,
			"repo": r.RepoURL, "commit": r.Commit, "branch": r.Branch, "predecessor": r.Predecessor, "status": r.WorkflowStatus,
		} {
			b[key] = value
		}
		b["allowOlder"], b["force"] = r.AllowOlder, r.Force
		if call.Retried {
			b["attempt"] = r.Attempt
		}
		e["workflow"] = map[string]any{"metadata": map[string]any{"name": r.Run.Name, "namespace": r.Run.Namespace, "uid": r.Run.UID}}
	})))
	require.NoError(t, err)
	require.True(t, ours)
	require.Equal(t, r, again.Request)
	require.Equal(t, call.NodeName(), again.NodeName())
}
