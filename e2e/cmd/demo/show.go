package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// runLimit is the time one run may take.
const runLimit = 10 * time.Minute

// show pushes the sample application twice.
func show(ctx context.Context, l *lab.Lab, root string, out io.Writer) error {
	p, err := l.NewPipeline(ctx, "shop")
	if err != nil {
		return err
	}
	source := filepath.Join(root, "examples", "shop")
	tree, err := os.MkdirTemp("", "aphex-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree) //nolint:errcheck // a temporary copy
	if err := lab.CheckedOut(ctx, source, tree); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(source, "aphex-config.yaml"))
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "1. The sample application is pushed: two CDK stacks for two accounts.")
	commit, err := p.Push(ctx, gitserver.Change{Dir: tree, Message: "shop: open"})
	if err != nil {
		return err
	}
	if err := p.Apply(ctx, config); err != nil {
		return err
	}
	if err := deliver(ctx, l, p, commit, out); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "\n2. One value changes and is pushed: the stack that has it is updated, the other is left alone.")
	commit, err = p.Push(ctx, gitserver.Change{
		Message: "shop: greet again",
		Write:   map[string]string{"lib/greeting.ts": "/** Shown on the front page. */\nexport const greeting = 'Welcome back to the shop';\n"},
	})
	if err != nil {
		return err
	}
	return deliver(ctx, l, p, commit, out)
}

// deliver starts a run, shows its log while it lasts and a table at its end.
func deliver(ctx context.Context, l *lab.Lab, p *lab.Pipeline, commit string, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("the run took longer than %s", runLimit))
	defer cancel()
	watch, err := l.WatchPods(ctx, p.Installation.Namespace)
	if err != nil {
		return err
	}
	run, err := p.Submit(ctx, commit)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "run %s of commit %.12s\n", run.Name, commit)
	logs := run.FollowLogs(ctx, stageLines{out})
	status, err := run.Wait(ctx)
	logs()
	if err != nil {
		return err
	}
	kept, err := p.Record(ctx, status.UID)
	if err != nil {
		return err
	}
	table(out, status, spans(kept))
	created, err := watch.Stop(run)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "pods created during the run: %d (%s)\n", len(created), strings.Join(created, ", "))
	if status.Phase != "Succeeded" {
		return fmt.Errorf("run %s ended %s: %s", run.Name, status.Phase, firstFailure(status))
	}
	if len(created) != 1 {
		return fmt.Errorf("expected one pod, saw %d", len(created))
	}
	return readBack(ctx, l, status, out)
}

func firstFailure(s lab.Status) string {
	for _, n := range s.Nodes {
		if n.Phase == "Failed" || n.Phase == "Error" {
			return n.Display + ": " + n.Message
		}
	}
	return s.Message
}

// span is a stage's place and time in the record: Argo's own times of plugin
// nodes are those of its last look at them, in whole seconds.
type span struct {
	place   int
	seconds float64
}

// spans returns the span of each stage by its node's name.
func spans(run record.Run) map[string]span {
	all := map[string]span{}
	for i, stage := range run.Stages {
		if stage.CompletedAt != nil {
			name := strings.Replace(stage.StageName, task.StageDeployEnv+"-", "deploy-", 1)
			all[name] = span{i - len(run.Stages), stage.CompletedAt.Sub(stage.StartedAt).Seconds()}
		}
	}
	return all
}

// table prints stage, result, seconds and message or outputs, in the order the
// stages began; those that never did come last.
func table(out io.Writer, s lab.Status, spent map[string]span) {
	slices.SortStableFunc(s.Nodes, func(a, b lab.Node) int { return cmp.Compare(spent[a.Display].place, spent[b.Display].place) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nSTAGE\tRESULT\tSECONDS\tWHAT")
	for _, n := range s.Nodes {
		name := n.Display
		if strings.HasSuffix(name, ".onExit") {
			name = "finish"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\n", name, n.Phase, spent[name].seconds, n.Message)
		for _, line := range outputs(n) {
			_, _ = fmt.Fprintf(w, "\t\t\t  %s\n", line)
		}
	}
	_ = w.Flush()
}

// outputs are the stack outputs of a deployment, one line each.
func outputs(n lab.Node) []string {
	var stacks map[string]map[string]string
	if text := n.Output("stack-outputs"); text == "" || json.Unmarshal([]byte(text), &stacks) != nil {
		return nil
	}
	var lines []string
	for stack, values := range stacks {
		for key, value := range values {
			lines = append(lines, stack+"."+key+" = "+value)
		}
	}
	slices.Sort(lines)
	return lines
}

// readBack asks the AWS command line what the accounts hold now, and compares
// the stacks' outputs with those the run handed on.
func readBack(ctx context.Context, l *lab.Lab, status lab.Status, out io.Writer) error {
	_, _ = fmt.Fprintln(out, "\nread back with the AWS command line:")
	for i, target := range lab.Targets() {
		environment := []string{"dev", "prod"}[i]
		text, err := l.AWSCLI(ctx, target.Account, target.Region, "cloudformation", "describe-stacks",
			"--query", "Stacks[?starts_with(StackName, 'shop-')]", "--output", "json")
		if err != nil {
			return err
		}
		lines, err := describe(text, func(stack, state string) {
			_, _ = fmt.Fprintf(out, "  %s %s %s: %s %s\n", environment, target.Account, target.Region, stack, state)
		})
		if err != nil {
			return err
		}
		for _, line := range lines {
			_, _ = fmt.Fprintf(out, "    %s\n", line)
		}
		if handed := outputs(status.Node("deploy-" + environment)); !slices.Equal(lines, handed) {
			return fmt.Errorf("%s: the accounts' outputs %q are not those of the run %q", environment, lines, handed)
		}
		text, err = l.AWSCLI(ctx, target.Account, target.Region, "ssm", "get-parameter", "--name", "/shop/"+environment+"/greeting", "--query", "Parameter.Value", "--output", "text")
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "    greeting: %s\n", strings.TrimSpace(text))
	}
	return nil
}

// describe tells each stack's status and returns the outputs of all, one line
// each, sorted.
func describe(text string, tell func(stack, state string)) ([]string, error) {
	var stacks []struct {
		StackName   string `json:"StackName"`
		StackStatus string `json:"StackStatus"`
		Outputs     []struct {
			OutputKey   string `json:"OutputKey"`
			OutputValue string `json:"OutputValue"`
		} `json:"Outputs"`
	}
	if err := json.Unmarshal([]byte(text), &stacks); err != nil {
		return nil, fmt.Errorf("read the answer of the AWS command line: %w", err)
	}
	var lines []string
	for _, stack := range stacks {
		tell(stack.StackName, stack.StackStatus)
		for _, o := range stack.Outputs {
			lines = append(lines, stack.StackName+"."+o.OutputKey+" = "+o.OutputValue)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// stageLines passes on the log of the stages and leaves out the plugin's own
// records, which are JSON for machines. kubectl writes whole lines.
type stageLines struct{ out io.Writer }

func (s stageLines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if strings.HasPrefix(line, "{") {
			continue
		}
		if _, err := io.WriteString(s.out, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
