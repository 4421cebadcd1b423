package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/record"
)

const region = "eu-west-1"

// ledger is what a run has left, with names that are equal in all runs.
type ledger struct {
	// Executed counts the change sets executed, by stack.
	Executed map[string]int `json:"executed"`
	// Stacks are the stacks' statuses and outputs.
	Stacks map[string]string `json:"stacks"`
	// Waiting are change sets that were made and never executed.
	Waiting []string `json:"waiting"`
	// Parameters are value and version of the parameters the stacks make.
	Parameters map[string]string `json:"parameters"`
	// Objects are the keys of the pipeline's bucket.
	Objects []string `json:"objects"`
	// Record is the status of the run's record and of its stages.
	Record string `json:"record"`
	// Revisions is what the state of the environments says.
	Revisions string `json:"revisions"`
	// Commands counts how often each command began.
	Commands map[string]int `json:"commands"`
}

// compare says how a run differs from one without a kill. After a retry it may
// have more of what describes attempts, never more of what was deployed.
func (l *ledger) compare(base *ledger, retried bool) (Verdict, string) {
	for stack, n := range l.Executed {
		if n > base.Executed[stack] {
			return Doubled, fmt.Sprintf("%d change sets of %s were executed, not %d", n, stack, base.Executed[stack])
		}
	}
	for name, want := range base.Commands {
		if l.Commands[name] < min(want, 1) {
			return Lost, fmt.Sprintf("command %s never began", name)
		}
	}
	objects := l.Objects
	if retried {
		objects = slices.DeleteFunc(slices.Clone(objects), func(key string) bool { return !slices.Contains(base.Objects, key) })
		objects = slices.Compact(objects) // a log for each try
	}
	var differences []string
	for _, part := range []struct {
		what      string
		got, want any
	}{
		{"stacks", l.Stacks, base.Stacks},
		{"executed change sets", l.Executed, base.Executed},
		{"parameters", l.Parameters, base.Parameters},
		{"objects", objects, base.Objects},
		{"record", l.Record, base.Record},
		{"revisions", l.Revisions, base.Revisions},
		{"change sets left over", l.Waiting, base.Waiting},
	} {
		if !reflect.DeepEqual(part.got, part.want) {
			differences = append(differences, fmt.Sprintf("%s: %s, not %s", part.what, text(part.got), text(part.want)))
		}
	}
	if len(differences) > 0 {
		return Lost, strings.Join(differences, "; ")
	}
	return OK, ""
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// ledger looks at everything the run has left.
func (s *stage) ledger(ctx context.Context, uid string) (*ledger, error) {
	l := &ledger{Commands: map[string]int{}, Stacks: map[string]string{}, Parameters: map[string]string{}}
	s.tap.mu.Lock()
	l.Executed = maps.Clone(s.tap.executed)
	for _, seen := range s.tap.seen {
		if seen.Kind == KindCommand && seen.Verb == "begin" {
			l.Commands[seen.Object]++
		}
	}
	s.tap.mu.Unlock()
	for _, look := range []func(context.Context, *ledger) error{s.stacks, s.parameters, s.objects, s.revisions} {
		if err := look(ctx, l); err != nil {
			return nil, err
		}
	}
	l.Record = s.record(ctx, uid)
	return l, nil
}

// record is the status of the run's record and of its stages, or why it cannot
// be read.
func (s *stage) record(ctx context.Context, uid string) string {
	run, err := s.pipeline.Record(ctx, uid)
	if err != nil {
		return err.Error()
	}
	parts := []string{string(run.Status)}
	if run.CompletedAt == nil {
		parts = append(parts, "without an end")
	}
	slices.SortFunc(run.Stages, func(a, b record.Stage) int { return strings.Compare(a.StageName, b.StageName) })
	for _, stage := range run.Stages {
		parts = append(parts, stage.StageName+" "+string(stage.Status))
	}
	return strings.Join(parts, ", ")
}

func (s *stage) stacks(ctx context.Context, l *ledger) error {
	client := cloudformation.NewFromConfig(s.h.lab.AWS.DirectConfig(aws.AccountTools, region))
	for _, suffix := range []string{"-data", "-api"} {
		name := s.names.pipeline + suffix
		out, err := client.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
		if err != nil {
			l.Stacks["{pipeline}"+suffix] = err.Error()
			continue
		}
		stack := out.Stacks[0]
		line := []string{string(stack.StackStatus)}
		for _, o := range stack.Outputs {
			line = append(line, s.names.plain(*o.OutputKey+"="+*o.OutputValue))
		}
		l.Stacks["{pipeline}"+suffix] = strings.Join(line, " ")
		sets, err := client.ListChangeSets(ctx, &cloudformation.ListChangeSetsInput{StackName: &name})
		if err != nil {
			return err
		}
		for _, set := range sets.Summaries {
			if set.ExecutionStatus != cfntypes.ExecutionStatusExecuteComplete {
				l.Waiting = append(l.Waiting, fmt.Sprintf("%s %s", "{pipeline}"+suffix, set.ExecutionStatus))
			}
		}
	}
	return nil
}

func (s *stage) parameters(ctx context.Context, l *ledger) error {
	client := ssm.NewFromConfig(s.h.lab.AWS.DirectConfig(aws.AccountTools, region))
	for _, leaf := range []string{"location", "greeting"} {
		name := "/chaos/" + s.names.pipeline + "/" + leaf
		out, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
		if err != nil {
			l.Parameters[leaf] = err.Error()
			continue
		}
		l.Parameters[leaf] = fmt.Sprintf("version %d: %s", out.Parameter.Version, s.names.plain(*out.Parameter.Value))
	}
	return nil
}

func (s *stage) objects(ctx context.Context, l *ledger) error {
	client := s3.NewFromConfig(s.h.lab.AWS.DirectConfig(aws.AccountTools, region), func(o *s3.Options) { o.UsePathStyle = true })
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &s.pipeline.Installation.Bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, object := range page.Contents {
			// How many pieces a log is written in depends on time; they are
			// kept for a day, the whole log is compared.
			if !strings.HasPrefix(*object.Key, "live/") {
				l.Objects = append(l.Objects, s.names.plain(*object.Key))
			}
		}
	}
	slices.Sort(l.Objects)
	return nil
}

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func (s *stage) revisions(ctx context.Context, l *ledger) error {
	state, err := s.h.lab.Dynamic.Resource(configMaps).Namespace(s.run.Namespace).Get(ctx, "aphex-state-"+s.names.pipeline, metav1.GetOptions{})
	if err != nil {
		return err
	}
	data, _, err := unstructured.NestedStringMap(state.Object, "data")
	l.Revisions = phase(data)
	return err
}

// gone waits until neither the run's pod nor a process of any of its pods is
// left, and says what is if that takes too long.
func (s *stage) gone(ctx context.Context) (string, error) {
	deadline := time.Now().Add(goneLimit)
	for {
		left, err := s.remains(ctx)
		if left == "" || err != nil || time.Now().After(deadline) {
			return left, err
		}
		select {
		case <-ctx.Done():
			return left, context.Cause(ctx)
		case <-time.After(gonePoll):
		}
	}
}

func (s *stage) remains(ctx context.Context) (string, error) {
	pod, err := s.h.lab.Dynamic.Resource(podResource).Namespace(s.run.Namespace).Get(ctx, s.run.AgentPod(), metav1.GetOptions{})
	switch {
	case err == nil:
		s.saw(string(pod.GetUID()))
		return "pod " + pod.GetName() + " is still there", nil
	case !apierrors.IsNotFound(err):
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid := range s.pods {
		all, err := processes(uid)
		if err != nil {
			return "", err
		}
		if len(all) > 0 {
			return fmt.Sprintf("processes of pod %s are still there: %v", uid, all), nil
		}
	}
	return "", nil
}

var workflowResource = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}

// clean removes the run's Workflow, and the journal with it.
func (s *stage) clean(ctx context.Context) error {
	return s.h.lab.Dynamic.Resource(workflowResource).Namespace(s.run.Namespace).Delete(ctx, s.run.Name, metav1.DeleteOptions{})
}
