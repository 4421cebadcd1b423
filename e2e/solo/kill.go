package solo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// Phase is where in a deployment a process is killed.
type Phase string

// The phases: while a change set is made, while it is executed, while its end
// is waited for.
const (
	Creation   Phase = "creation"
	Execution  Phase = "execution"
	Monitoring Phase = "monitoring"
)

// Phases are all of them.
func Phases() []Phase { return []Phase{Creation, Execution, Monitoring} }

// operations are those at which a process is killed in a phase.
func (p Phase) operations() []string {
	return map[Phase][]string{
		Creation: {"CreateChangeSet", "DescribeChangeSet"}, Execution: {"ExecuteChangeSet"}, Monitoring: {"DescribeStackEvents"},
	}[p]
}

// trial is one deployment of three stacks that is interrupted.
type trial struct {
	emulator *aws.Emulator
	client   *cfnsdk.Client
	spec     Spec
	proxy    *Proxy
	names    []string
}

const (
	// Region is where trials deploy.
	Region = "eu-west-1"
	// stacksOfTrial is how many stacks a trial has, each of which waits for a
	// signal.
	stacksOfTrial = 3
	// trialLimit bounds a trial.
	trialLimit = 3 * time.Minute
	// patience is the pause between two looks of the harness.
	patience = 50 * time.Millisecond
)

func newTrial(e *aws.Emulator, dir, name string) (*trial, error) {
	t := &trial{emulator: e, client: cfnsdk.NewFromConfig(e.Config(aws.AccountTarget, Region))}
	var stacks []Stack
	for i := range stacksOfTrial {
		s := Stack{Name: fmt.Sprintf("%s-%d", name, i), Template: Waiting(name)}
		if i > 0 {
			s.After = []string{t.names[i-1]}
		}
		t.names, stacks = append(t.names, s.Name), append(stacks, s)
	}
	assembly := filepath.Join(dir, "assembly")
	if err := Assembly(assembly, aws.AccountTarget, Region, stacks); err != nil {
		return nil, err
	}
	var err error
	if t.proxy, err = NewProxy(e.Endpoint(), 0); err != nil {
		return nil, err
	}
	t.spec = Spec{
		Dir: filepath.Join(dir, "state"), Environment: "dev", Assembly: assembly, Endpoint: t.proxy.URL(), TemplateEndpoint: e.Endpoint(),
		Account: aws.AccountTools, Region: Region, Run: name,
		Config: Config(Region, 1, map[string]string{"dev": aws.AccountTarget}, map[string][]string{"dev": t.names}),
	}
	return t, nil
}

// Kill deploys three stacks and kills the process with SIGKILL in a phase of
// one of them, before or after what it asked for took effect, then runs the
// same execution again. It returns what was hit, for the record.
//
// An error means that the deployment did not end as one without interruption
// does: every stack created by one executed change set, and nothing left over.
func Kill(ctx context.Context, e *aws.Emulator, dir, name string, phase Phase, random *rand.Rand) (hit string, err error) {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	t, err := newTrial(e, dir, name)
	if err != nil {
		return "", err
	}
	defer t.proxy.Close()
	p := &plan{
		victim: t.names[random.IntN(len(t.names))], operation: phase.operations()[random.IntN(len(phase.operations()))],
		after: random.IntN(2) == 1, skip: random.IntN(3),
	}
	if phase != Monitoring {
		p.skip = 0
	}
	process, err := Start(ctx, t.spec)
	if err != nil {
		return p.String(), err
	}
	p.kill = process.Kill
	t.proxy.On(p.act)
	// What comes before the victim ends; the victim itself is not signalled.
	signals, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { t.signal(signals, func(stack string) bool { return stack < p.victim || p.done() }) })
	defer wg.Wait()
	defer stop()
	select {
	case <-process.Ended():
	case <-ctx.Done():
	}
	if _, err := process.Wait(); err == nil || !p.done() {
		return p.String(), fmt.Errorf("the process was not killed: %w", errors.Join(err, ctx.Err()))
	}
	t.proxy.On(nil)
	again, err := Start(ctx, t.spec)
	if err != nil {
		return p.String(), err
	}
	reply, err := again.Wait()
	if err == nil && reply.Phase != "Succeeded" {
		err = fmt.Errorf("the second process: %s: %s", reply.Phase, reply.Message)
	}
	return p.String(), errors.Join(err, t.verify(ctx, reply))
}

// plan is when a process is killed.
type plan struct {
	victim, operation string
	// after lets the call take effect first; skip is how many calls pass.
	after bool
	skip  int
	kill  func() error

	mu     sync.Mutex
	killed bool
}

func (p *plan) String() string {
	when := "before"
	if p.after {
		when = "after"
	}
	return fmt.Sprintf("%s %s of %s, the %d. one", when, p.operation, p.victim, p.skip+1)
}

func (p *plan) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

func (p *plan) act(call aws.Call, forward func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return false // of a dying process
	}
	if call.Operation != p.operation || !concerns(call, p.victim) {
		return true
	}
	if p.skip > 0 {
		p.skip--
		return true
	}
	if p.after {
		forward()
	}
	p.killed = true
	_ = p.kill() // a process that has ended meanwhile is noticed by its reply
	return false
}

// concerns reports whether a call is about a stack, given by name or ARN.
func concerns(call aws.Call, stack string) bool {
	name := call.Form.Get("StackName")
	return name == stack || strings.Contains(name, "/"+stack+"/")
}

// signal ends the wait conditions of all stacks that may go on.
func (t *trial) signal(ctx context.Context, may func(stack string) bool) {
	done := map[string]bool{}
	for ctx.Err() == nil {
		for _, name := range t.names {
			if !done[name] && may(name) {
				done[name] = Signal(ctx, t.client, name) == nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(patience):
		}
	}
}

// Signal ends the wait condition of a stack made from Waiting.
func Signal(ctx context.Context, client *cfnsdk.Client, stack string) error {
	out, err := client.DescribeStackResource(ctx, &cfnsdk.DescribeStackResourceInput{StackName: awssdk.String(stack), LogicalResourceId: awssdk.String("Handle")})
	if err != nil {
		return err
	}
	url := awssdk.ToString(out.StackResourceDetail.PhysicalResourceId)
	if !strings.HasPrefix(url, "http") {
		return errors.New("the handle has no URL yet")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader([]byte(`{"Status": "SUCCESS", "UniqueId": "1", "Reason": "r", "Data": "d"}`)))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}

// verify compares what is there with what a deployment without interruption
// leaves behind.
func (t *trial) verify(ctx context.Context, reply Reply) error {
	var errs []error
	if strings.Count(reply.Message, " created") != len(t.names) {
		errs = append(errs, fmt.Errorf("the result is another one: %s", reply.Message))
	}
	for _, name := range t.names {
		if !strings.Contains(reply.Outputs, `"`+name+`"`) {
			errs = append(errs, fmt.Errorf("the outputs lack stack %s: %s", name, reply.Outputs))
		}
		out, err := t.client.DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: awssdk.String(name)})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if status := out.Stacks[0].StackStatus; status != "CREATE_COMPLETE" {
			errs = append(errs, fmt.Errorf("stack %s is %s", name, status))
		}
		executed := map[string]bool{}
		for _, c := range t.emulator.Calls() {
			if c.Operation == "ExecuteChangeSet" && c.Status == http.StatusOK && concerns(c, name) {
				executed[c.Form.Get("ChangeSetName")] = true
			}
		}
		if len(executed) != 1 {
			errs = append(errs, fmt.Errorf("change sets executed of stack %s: %v", name, executed))
		}
		sets, err := t.client.ListChangeSets(ctx, &cfnsdk.ListChangeSetsInput{StackName: awssdk.String(name)})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, set := range sets.Summaries {
			if !executed[awssdk.ToString(set.ChangeSetId)] {
				errs = append(errs, fmt.Errorf("change set %s of stack %s is left over", awssdk.ToString(set.ChangeSetName), name))
			}
		}
	}
	return errors.Join(errs...)
}
