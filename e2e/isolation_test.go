package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// foreign says what is wrong with a write: that it is not one of those that a
// run makes to the objects of its own and of its pipeline; empty if it is.
func foreign(w lab.Write, namespace string) string {
	if w.Resource == "selfsubjectaccessreviews" {
		return "" // the plugin's check of its own rights: a question, no object
	}
	if w.Namespace != namespace {
		return "another namespace"
	}
	// The name of a run begins with its pipeline's, that of its pods with its
	// own.
	own := strings.HasPrefix(w.Pod, w.Name+"-")
	if run, ok := strings.CutSuffix(w.Pod, lab.AgentSuffix); ok {
		own = w.Name == run
	}
	pipeline := func(prefix string) bool {
		name, ok := strings.CutPrefix(w.Name, prefix)
		return ok && name != "" && strings.HasPrefix(w.Pod, name+"-")
	}
	switch what := w.Account + ": " + w.Verb + " " + w.Resource; what {
	case pluginAccount + ": patch workflows", pluginAccount + ": patch workflowtasksets/status":
		if !own {
			return "another run"
		}
	case pluginAccount + ": create workflows": // a successor
		if base := w.Name[:max(0, strings.LastIndex(w.Name, "-"))]; base == "" || !strings.HasPrefix(w.Pod, base[:max(1, strings.LastIndex(base, "-"))]) {
			return "a run of another pipeline"
		}
	case pluginAccount + ": patch workflowtemplates":
		if !pipeline("") {
			return "another pipeline's template"
		}
	case pluginAccount + ": create configmaps", pluginAccount + ": update configmaps", pluginAccount + ": patch configmaps":
		if !strings.HasPrefix(w.Name, "aphex-journal-") && !pipeline("aphex-state-") {
			return "no journal, and not the pipeline's state"
		}
	case reconcileAccount + ": patch workflows", reconcileAccount + ": delete pods":
	case reconcileAccount + ": delete configmaps":
		if !strings.HasPrefix(w.Name, "aphex-journal-") {
			return "no journal"
		}
	default:
		return "not what it is for"
	}
	return ""
}

const (
	pluginAccount    = "aphex-executor-plugin"
	reconcileAccount = "aphex-reconcile"
)

// foreignWrites lists the writes of a lab's life that are foreign, and
// journals that pods of two runs have written.
func foreignWrites(l *lab.Lab) ([]string, error) {
	writes, err := l.Writes()
	if err != nil {
		return nil, err
	}
	var out []string
	journals := map[string]string{}
	for _, w := range writes {
		if why := foreign(w, l.Cluster.Namespace()); why != "" {
			out = append(out, fmt.Sprintf("%s: %s", why, w))
		}
		run, agent := strings.CutSuffix(w.Pod, lab.AgentSuffix)
		if !agent || !strings.HasPrefix(w.Name, "aphex-journal-") {
			continue
		}
		if other := journals[w.Name]; other != "" && other != run {
			out = append(out, fmt.Sprintf("journal of %s: %s", other, w))
		}
		journals[w.Name] = run
	}
	return out, nil
}

// TestIsolation_ARunChangesItsOwnPipelineAlone: while a run of one pipeline is
// under way in the same namespace, a run of another one changes that one's
// stages. The API server's audit log has every attempt to write of both; the
// neighbour and its run are as they were, and it comes to its end.
//
// Feature: aphex-pipeline, Property 26: Cluster resource isolation
func TestIsolation_ARunChangesItsOwnPipelineAlone(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	ctx := limited(t)
	neighbour := holdBuild(ctx, t, l, "isolated-neighbour", pluginRunner())
	templateBefore, err := l.TemplateSpec(ctx, neighbour.p, "templates", "entrypoint", "arguments")
	require.NoError(t, err)

	p, _, _ := newSmall(t, l, "isolated")
	commit := pushConfig(ctx, t, p, "add prod", config([]string{". ./ledger.sh; did build"}, dev("isolated"),
		environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: "isolated"}))
	run, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("deploy-pipeline").Message, "deploy-prod")

	templateAfter, err := l.TemplateSpec(ctx, neighbour.p, "templates", "entrypoint", "arguments")
	require.NoError(t, err)
	require.Equal(t, templateBefore, templateAfter)
	neighbour.release()
	ended, err := neighbour.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", ended.Phase, "%+v", ended)

	if l.Cluster.AuditLog() == "" {
		t.Log("this kind of cluster keeps no audit log: the neighbour alone was looked at")
		return
	}
	writes, err := l.Writes()
	require.NoError(t, err)
	var own []lab.Write
	for _, w := range writes {
		if w.Pod == run.AgentPod() {
			own = append(own, w)
			require.Empty(t, foreign(w, l.Cluster.Namespace()), "%s", w)
		}
	}
	for _, what := range []string{"patch workflows", "patch workflowtemplates", "update configmaps"} {
		require.True(t, slices.ContainsFunc(own, func(w lab.Write) bool { return w.Verb+" "+w.Resource == what }), "%s in %v", what, own)
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	write := func(account, pod, verb, resource, name string) lab.Write {
		return lab.Write{Account: account, Pod: pod, Verb: verb, Resource: resource, Namespace: "shop", Name: name}
	}
	const agent = "shop-x7k2p" + lab.AgentSuffix
	for _, w := range []lab.Write{
		write(pluginAccount, agent, "patch", "workflows", "shop-x7k2p"),
		write(pluginAccount, agent, "patch", "workflowtasksets/status", "shop-x7k2p"),
		write(pluginAccount, agent, "create", "workflows", "shop-x7k2p-s0123456789"),
		write(pluginAccount, agent, "patch", "workflowtemplates", "shop"),
		write(pluginAccount, agent, "patch", "configmaps", "aphex-state-shop"),
		write(pluginAccount, agent, "create", "configmaps", "aphex-journal-0123"),
		write(pluginAccount, "shop-x7k2p-build-123", "patch", "workflows", "shop-x7k2p"),
		write(reconcileAccount, "aphex-reconcile-1", "delete", "configmaps", "aphex-journal-0123"),
	} {
		require.Empty(t, foreign(w, "shop"), "%s", w)
		require.NotEmpty(t, foreign(w, "team"), "%s", w)
	}
	require.Empty(t, foreign(lab.Write{Account: pluginAccount, Pod: agent, Verb: "create", Resource: "selfsubjectaccessreviews"}, "shop"))
	for _, w := range []lab.Write{
		write(pluginAccount, agent, "patch", "workflows", "shop-x7k2q"),
		write(pluginAccount, agent, "patch", "workflows", "shop"),
		write(pluginAccount, agent, "patch", "workflows", "shop-x7k2p-s0123456789"),
		write(pluginAccount, agent, "delete", "workflows", "shop-x7k2p"),
		write(pluginAccount, agent, "create", "workflows", "web-x7k2p-s0123456789"),
		write(pluginAccount, agent, "patch", "workflowtemplates", "web"),
		write(pluginAccount, agent, "patch", "workflowtemplates", "sho"),
		write(pluginAccount, agent, "patch", "configmaps", "aphex-pipeline-shop"),
		write(pluginAccount, agent, "patch", "configmaps", "aphex-state-web"),
		write(pluginAccount, agent, "create", "rolebindings", "shop"),
		write(reconcileAccount, "aphex-reconcile-1", "delete", "configmaps", "aphex-state-shop"),
		write("default", agent, "patch", "workflows", "shop-x7k2p"),
	} {
		require.NotEmpty(t, foreign(w, "shop"), "%s", w)
	}
}
