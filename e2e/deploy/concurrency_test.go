package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// graph makes the stage's app one of stacks that wait for a signal each, with
// what each depends on, and lists them all.
func (s *stage) graph(concurrency int, order []string, dependencies map[string][]string) {
	s.t.Helper()
	artifacts, listed := map[string]any{}, strings.Builder{}
	s.files = map[string]string{}
	for _, id := range order {
		artifacts[id] = map[string]any{
			"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "dependencies": dependencies[id],
			"properties": map[string]any{"templateFile": id + ".json", "stackName": s.prefix + "-" + id},
		}
		s.files[id+".json"] = waiting
		_, _ = fmt.Fprintf(&listed, "  - {name: %s, path: infra}\n", id)
	}
	text, err := json.Marshal(map[string]any{"version": "55.0.0", "artifacts": artifacts})
	require.NoError(s.t, err)
	s.files["manifest.json"] = string(text)
	s.config = fmt.Sprintf("version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: %s\n  account: \"%s\"\n  concurrency: %d\n  stacks:\n%s", region, target, concurrency, listed.String())
	s.base = target
}

// status returns the status of a stack; empty if it does not exist.
func (s *stage) status(id string) string {
	name := s.prefix + "-" + id
	out, err := cfnsdk.NewFromConfig(config(s.emulator, target)).DescribeStacks(s.t.Context(), &cfnsdk.DescribeStacksInput{StackName: &name})
	if err != nil {
		return ""
	}
	return string(out.Stacks[0].StackStatus)
}

func (s *stage) awaitStatus(id, want string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.status(id) == want }, 30*time.Second, 20*time.Millisecond, "%s never got %s", id, want)
}

func (s *stage) signal(id, status string) {
	s.t.Helper()
	signal(s.t, cfnsdk.NewFromConfig(config(s.emulator, target)), s.prefix+"-"+id, status)
}

func diamond() ([]string, map[string][]string) {
	return []string{"base", "left", "right", "top", "beside"}, map[string][]string{"left": {"base"}, "right": {"base"}, "top": {"left", "right"}}
}

// What depends on nothing that is under way runs beside it; a failure keeps
// back what depends on it and nothing else, and every failure is told.
func TestStage_IndependentStacksSideBySide(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Emulator)
	s := newStage(t, emulator(t))
	order, dependencies := diamond()
	s.graph(3, order, dependencies)
	ended := make(chan error, 1)
	go func() {
		_, err := s.run("a")
		ended <- err
	}()
	s.awaitStatus("base", "CREATE_IN_PROGRESS")
	s.awaitStatus("beside", "CREATE_IN_PROGRESS")
	require.Empty(t, s.status("left"), "it depends on base")
	s.signal("base", "SUCCESS")
	s.awaitStatus("left", "CREATE_IN_PROGRESS")
	s.awaitStatus("right", "CREATE_IN_PROGRESS")
	s.signal("left", "FAILURE")
	s.awaitStatus("left", "ROLLBACK_COMPLETE")
	s.signal("beside", "FAILURE")
	s.signal("right", "SUCCESS")
	err := <-ended
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed})
	require.ErrorContains(t, err, "2 findings: (1) deploy stack "+s.prefix+"-left")
	require.ErrorContains(t, err, "(2) deploy stack "+s.prefix+"-beside")
	require.ErrorContains(t, err, "not deployed: "+s.prefix+"-top")
	require.Equal(t, "CREATE_COMPLETE", s.status("right"), "it does not depend on what failed")
	require.Empty(t, s.status("top"))
	require.Contains(t, s.log.String(), " AWS calls: CloudFormation ")
}

// Stopped while several are under way, the stage leaves them alone and begins
// no other; asked again, it joins them.
func TestStage_StoppedSideBySide(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Emulator)
	s := newStage(t, emulator(t))
	order, dependencies := diamond()
	s.graph(4, order, dependencies)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.runWith(ctx, "a")
		ended <- err
	}()
	s.awaitStatus("base", "CREATE_IN_PROGRESS")
	s.awaitStatus("beside", "CREATE_IN_PROGRESS")
	cancel()
	err := <-ended
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
	require.ErrorContains(t, err, "the stack was left in CREATE_IN_PROGRESS")
	require.Empty(t, s.status("left"))

	s.written = len(s.writes())
	results := make(chan task.Result, 1)
	go func() {
		result, err := s.run("a")
		results <- result
		ended <- err
	}()
	for _, id := range order {
		s.awaitStatus(id, "CREATE_IN_PROGRESS")
		s.signal(id, "SUCCESS")
	}
	result := <-results
	require.NoError(t, errors.Join(<-ended))
	require.Regexp(t, `^dev: 5 stacks in \d+ s: P-base \w+, P-left created, P-right created, P-top created, P-beside \w+; \d+ AWS calls$`, strings.ReplaceAll(result.Message, s.prefix, "P"), "in configured order")
	executed := 0
	for _, c := range s.emulator.Calls() {
		if c.Operation == "ExecuteChangeSet" && strings.Contains(c.Form.Get("StackName"), "/"+s.prefix+"-") {
			executed++
		}
	}
	require.Equal(t, 5, executed, "each stack once")
}
