package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// scenario is one of the founding document's error scenarios: what breaks, what
// must be seen of it everywhere, and what heals it.
type scenario struct {
	name string
	// write is the commit that breaks it; config is the configuration if that
	// is not valid and so cannot be what the template is generated from.
	write  func(t *testing.T, name string, channels string) map[string]string
	stage  string
	reason fault.Reason
	// message and log are in the node's message and in the stage's log.
	message, log []string
	// events are in those that are kept of the stack.
	events []string
	// deployed says that the stack of dev is there afterwards.
	deployed bool
	// untouched stages never start.
	untouched []string
	// goesOn is a run that succeeds all the same.
	goesOn bool
	// before and after break and mend what is not in the repository.
	before, after func(t *testing.T, l *lab.Lab, p *lab.Pipeline)
	// retry heals the run itself; otherwise the next commit is another run.
	retry bool
}

// good is the configuration that all scenarios begin and end with.
func good(name, channels string) string {
	return config(
		[]string{". ./ledger.sh; did build"}, dev(name, ". ./ledger.sh; did test"),
		environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: name},
	) + channels
}

// replaced is the configuration with a part of it replaced.
func replaced(t *testing.T, name, channels, old, replacement string) map[string]string {
	t.Helper()
	before := good(name, channels)
	require.Contains(t, before, old)
	return map[string]string{pipeline.DefaultFile: strings.Replace(before, old, replacement, 1)}
}

func scenarios() []scenario {
	later := []string{"deploy-prod"}
	return []scenario{
		{
			name: "scenario-build", stage: "build", reason: fault.CommandFailed,
			write: func(t *testing.T, name, channels string) map[string]string {
				t.Helper()
				return replaced(t, name, channels, "did build", "echo doomed >&2; exit 3")
			},
			message: []string{"exit", "3", "doomed"}, log: []string{"doomed"}, untouched: append(later, "deploy-pipeline", "deploy-dev", "test-dev"),
		},
		{
			name: "scenario-synth", stage: "deploy-dev", reason: fault.SynthFailed,
			write: func(*testing.T, string, string) map[string]string {
				return map[string]string{"synth.sh": "echo boom from the app >&2\nexit 1\n"}
			},
			message: []string{"boom from the app"}, log: []string{"boom from the app"}, untouched: append(later, "test-dev"),
		},
		{
			name: "scenario-stack", stage: "deploy-dev", reason: fault.StackFailed,
			write: func(t *testing.T, name, _ string) map[string]string {
				t.Helper()
				write := smallTemplate(t, name, "two")
				for path, text := range write {
					write[path] = strings.Replace(text, `"Type": "String"`, `"Type": "Bogus"`, 1)
				}
				return write
			},
			message: []string{"scenario-stack", "Value"}, log: []string{"scenario-stack"}, events: []string{"_FAILED", "ROLLBACK"}, untouched: append(later, "test-dev"),
		},
		{
			name: "scenario-tests", stage: "test-dev", reason: fault.CommandFailed,
			write: func(t *testing.T, name, channels string) map[string]string {
				t.Helper()
				return replaced(t, name, channels, "did test", "echo not healthy; exit 9")
			},
			message: []string{"9", "not healthy"}, log: []string{"not healthy"}, untouched: later, deployed: true,
		},
		{
			name: "scenario-config", stage: "validate", reason: fault.ConfigInvalid,
			write: func(t *testing.T, name, channels string) map[string]string {
				t.Helper()
				return replaced(t, name, channels, "region: eu-west-1", "region: somewhere")
			},
			message: []string{"environments[0].region", "somewhere"}, log: []string{"environments[0].region", "somewhere"}, untouched: append(later, "build", "deploy-pipeline", "deploy-dev", "test-dev"),
		},
		{
			name: "scenario-pipeline", stage: "deploy-pipeline", reason: fault.ConfigInvalid, goesOn: true,
			write: func(*testing.T, string, string) map[string]string {
				return map[string]string{"README": "a change that is not the reason"}
			},
			before: func(t *testing.T, l *lab.Lab, p *lab.Pipeline) {
				t.Helper()
				setInstallation(t, l, p, "pipeline: [broken")
			},
			after:   func(t *testing.T, l *lab.Lab, p *lab.Pipeline) { t.Helper(); mendInstallation(t, l, p) },
			message: []string{pipeline.InstallationKey}, log: []string{pipeline.InstallationKey}, deployed: true,
		},
	}
}

// TestScenarios drives the founding document's error scenarios; that of the
// credentials has a test of its own, since it needs all of AWS's front door.
func TestScenarios(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			drive(t, l, s)
		})
	}
}

// TestScenario_Credentials: the role of the environment cannot be assumed.
// Once it can, a retry of the same run completes it.
func TestScenario_Credentials(t *testing.T) {
	l := needLab(t)
	role := "arn:aws:iam::222222222222:role/cdk-hnb659fds-deploy-role-222222222222-eu-central-1"
	drive(t, l, scenario{
		name: "scenario-credentials", stage: "validate", reason: fault.RoleDenied, retry: true,
		write: func(*testing.T, string, string) map[string]string {
			return map[string]string{"README": "a change that is not the reason"}
		},
		before: func(t *testing.T, l *lab.Lab, _ *lab.Pipeline) {
			t.Helper()
			require.NoError(t, l.AWS.Rules(t.Context(), `[{"service": "sts", "operation": "AssumeRole", "body": "RoleArn == '`+role+`'", "error": {"code": "AccessDenied", "status": 403}}]`))
			t.Cleanup(func() { require.NoError(t, l.AWS.ClearRules(context.WithoutCancel(t.Context()))) })
		},
		after: func(t *testing.T, l *lab.Lab, _ *lab.Pipeline) {
			t.Helper()
			require.NoError(t, l.AWS.ClearRules(t.Context()))
		},
		message: []string{role}, log: []string{role, "AccessDenied"}, untouched: []string{"build", "deploy-pipeline", "deploy-dev", "test-dev", "deploy-prod"},
	})
}

func drive(t *testing.T, l *lab.Lab, s scenario) {
	t.Helper()
	p, _, _ := newSmall(t, l, s.name)
	mail := &mailbox{mail: map[string][]string{}}
	putParameter(t, l, "/e2e/hook-"+s.name, listen(t, l, mail)+"/hook")
	channels := "notifications: [{type: webhook, target: \"ssm:/e2e/hook-" + s.name + "\"}]\n"
	ctx := limited(t)
	change := map[string]string{pipeline.DefaultFile: good(s.name, channels)}
	maps.Copy(change, s.write(t, s.name, channels))
	commit, err := p.Push(ctx, gitserver.Change{Message: "break it", Write: change})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(good(s.name, channels))))
	if s.before != nil {
		s.before(t, l, p)
	}
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	requireScenario(t, l, p, s, run, status, mail.received("/hook"), commit)
	if s.after != nil {
		s.after(t, l, p)
	}

	if s.retry {
		require.NoError(t, run.Retry(ctx))
	} else {
		mended := smallTemplate(t, s.name, "three")
		mended[pipeline.DefaultFile] = good(s.name, channels)
		synth, err := os.ReadFile("testdata/small/synth.sh")
		require.NoError(t, err)
		mended["synth.sh"] = string(synth)
		commit, err = p.Push(ctx, gitserver.Change{Message: "mend it", Write: mended})
		require.NoError(t, err)
		run, err = p.Submit(ctx, commit)
		require.NoError(t, err)
	}
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	requirePhases(t, status, map[string]string{
		"validate": "Succeeded", "build": "Succeeded", "deploy-pipeline": "Succeeded",
		"deploy-dev": "Succeeded", "test-dev": "Succeeded", "deploy-prod": "Succeeded",
	})
	require.Len(t, mail.received("/hook"), 2)
	require.Contains(t, mail.received("/hook")[1], `"event":"succeeded"`)
}

// requireScenario checks everything that must be seen of a failure.
func requireScenario(t *testing.T, l *lab.Lab, p *lab.Pipeline, s scenario, run *lab.Run, status lab.Status, hook []string, commit string) {
	t.Helper()
	phase, event := "Failed", pipeline.EventFailed
	if s.goesOn {
		phase, event = "Succeeded", pipeline.EventDeferred
	}
	require.Equal(t, phase, status.Phase, "%+v", status)
	node := status.Node(s.stage)
	require.Equal(t, "Failed", node.Phase, "%s: %s", s.stage, node.Message)
	require.Contains(t, node.Message, "["+string(s.reason)+"]")
	for _, part := range s.message {
		require.Contains(t, node.Message, part)
	}
	log := object(t, l, node.Output("log-url"))
	require.NotEmpty(t, log)
	for _, part := range s.log {
		require.Contains(t, log, part)
	}
	for _, name := range s.untouched {
		require.Contains(t, []string{"Omitted", ""}, status.Node(name).Phase, name)
	}

	rec, err := p.Record(t.Context(), status.UID)
	require.NoError(t, err)
	require.Equal(t, strings.ToLower(phase), string(rec.Status))
	failed := record.FirstFailed(rec.Stages)
	require.NotNil(t, failed, "%+v", rec)
	require.Equal(t, string(s.reason), failed.Reason)
	require.NotNil(t, failed.ErrorMessage)
	require.Equal(t, node.Message, *failed.ErrorMessage)
	if len(s.events) > 0 {
		events, err := l.Aphex(t.Context(), "events", run.Name, s.name, "--pipeline", p.Installation.Pipeline, "-n", p.Installation.Namespace)
		require.NoError(t, err)
		for _, part := range s.events {
			require.Contains(t, events, part)
		}
	}
	if s.deployed {
		require.NotNil(t, stackOutputs(t, l, aws.AccountTools, "eu-west-1", s.name), "what was deployed stays")
	}

	require.Len(t, hook, 1)
	var told notify.Event
	require.NoError(t, json.Unmarshal([]byte(hook[0]), &told))
	require.Equal(t, event, told.Event)
	require.Equal(t, commit, told.Commit)
	require.Equal(t, run.Name, told.Run)
	require.NotNil(t, told.Failed)
	require.Equal(t, string(s.reason), told.Failed.Reason)
	require.Equal(t, node.Message, told.Failed.Message)
}

// setInstallation replaces the text of a pipeline's installation in the
// cluster.
func setInstallation(t *testing.T, l *lab.Lab, p *lab.Pipeline, text string) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": map[string]string{pipeline.InstallationKey: text}})
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), nil, "patch", "configmap", pipeline.InstallationName(p.Installation.Pipeline), "-n", p.Installation.Namespace, "--type=merge", "-p", string(patch))
	require.NoError(t, err)
}

func mendInstallation(t *testing.T, l *lab.Lab, p *lab.Pipeline) {
	t.Helper()
	text, err := pipeline.MarshalInstallation(p.Installation)
	require.NoError(t, err)
	setInstallation(t, l, p, string(text))
}

// TestScenarios_AreTheRowsOfTheirPage: every row of the page names tests that
// exist, and every scenario has a row.
func TestScenarios_AreTheRowsOfTheirPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/spec/scenarios.md")
	require.NoError(t, err)
	var sources strings.Builder
	for _, file := range []string{"scenarios_test.go", "reports_test.go", "outages_test.go", "failures_test.go", "notify_test.go", "successor_test.go", "selfmod_test.go", "infra_test.go"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		sources.Write(text)
	}
	named := regexp.MustCompile("`(Test[A-Z]\\w*)(?:/([a-z-]+))?`").FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, named)
	driven := map[string]bool{}
	for _, name := range named {
		require.Contains(t, sources.String(), "func "+name[1]+"(t *testing.T)")
		driven[name[2]] = true
	}
	for _, s := range scenarios() {
		require.True(t, driven[s.name], s.name)
	}
	require.Equal(t, 7, strings.Count(string(page), "\n| ")-2, "seven scenarios and the head of the table")
}
