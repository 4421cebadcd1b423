package cfn

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	stackType = "AWS::CloudFormation::Stack"
	// statusEvery is how often the stack itself is looked at although its
	// events say that it is still at work.
	statusEvery = 15 * time.Second
	// staleRead is how long a final status is doubted that no event of ours
	// explains: reads may lag behind the start of an operation.
	staleRead = 30 * time.Second
	// lag is how long the stack may contradict its own final event.
	lag = 10 * time.Second
	// maxEventPages bounds reading back; a page has 100 events.
	maxEventPages = 50
)

// watcher follows one execution of a change set, or one deletion, to its end.
type watcher struct {
	o     *operation
	token string
	since time.Time
	// follows are the stack and those nested in it.
	follows []*follow
	history history
	// final is the stack's status as its last event has it.
	final   Status
	finalAt time.Time
	// deletion is when somebody began to delete the stack; nil if nobody has.
	deletion *Event
	// deleting says that the operation is a deletion of ours.
	deleting bool
	began    bool
	looked   time.Time
	started  time.Time
	// silent is since when CloudFormation does not answer.
	silent time.Time
}

// follow is one stack whose events are read.
type follow struct {
	arn    string
	ids    []string
	newest string
	ended  bool
}

// watch waits for the end of an executed change set and turns it into the
// result.
func (o *operation) watch(ctx context.Context, set *changeSet) (Result, error) {
	w := o.watcher(set.stack, set.created)
	stack, status, err := w.wait(ctx)
	if err != nil {
		return Result{}, err
	}
	return o.conclude(ctx, w, stack, status)
}

func (o *operation) watcher(stackARN string, since time.Time) *watcher {
	return &watcher{
		o: o, token: o.id.token("execute", o.state.Generation), since: since.Truncate(time.Second),
		follows: []*follow{{arn: stackARN}}, started: time.Now(),
	}
}

// joinUnseen decides what became of a change set that may have been executed
// and cannot be described any more.
func (o *operation) joinUnseen(ctx context.Context) (Result, error) {
	stack, err := o.d.describe(ctx, o.state.Stack, o.op)
	if err != nil {
		return Result{}, err
	}
	if stack == nil {
		return Result{}, o.disappeared(nil)
	}
	w := o.watcher(o.state.Stack, time.Time{})
	if err := w.poll(ctx); err != nil {
		return Result{}, awserr.Fault(ctx, err, o.op+": read the events")
	}
	if aws.ToString(stack.ChangeSetId) != o.state.ChangeSet && !w.began {
		return Result{}, o.replan()
	}
	o.note("joining the execution of change set %s", o.state.ChangeSet)
	live, status, err := w.wait(ctx)
	if err != nil {
		return Result{}, err
	}
	return o.conclude(ctx, w, live, status)
}

// wait returns the stack and the status in which our operation ended.
func (w *watcher) wait(ctx context.Context) (*cfntypes.Stack, Status, error) {
	pause := w.o.d.cfg.Limits.pause()
	var last Status
	for {
		before := len(w.history.events)
		stack, status, err := w.look(ctx)
		if ctx.Err() != nil {
			return nil, "", w.o.left(ctx, last)
		}
		if err != nil && !awserr.Temporary(err) {
			return nil, "", awserr.Fault(ctx, err, w.o.op+": watch the stack")
		}
		if err := w.outage(ctx, err); err != nil {
			return nil, "", err
		}
		if err == nil && status.Terminal() {
			return stack, status, nil
		}
		if status != "" {
			last = status
		}
		if len(w.history.events) > before {
			pause.news()
		}
		if !pause.wait(ctx) {
			return nil, "", w.o.left(ctx, last)
		}
	}
}

// lastLook bounds the question for the status of a stack that is being left.
const lastLook = 5 * time.Second

// left is the fault for a deployment that stopped waiting because ctx ended.
func (o *operation) left(ctx context.Context, last Status) error {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	if stack, err := o.d.describe(short, o.state.Stack, o.op); err == nil && stack != nil {
		last = Status(stack.StackStatus)
	}
	return ended(ctx, o.op, last)
}

// outage gives up once CloudFormation has not answered for too long.
func (w *watcher) outage(ctx context.Context, err error) error {
	if err == nil {
		w.silent = time.Time{}
		return nil
	}
	if w.silent.IsZero() {
		w.silent = time.Now()
		w.o.note("CloudFormation does not answer (%v), still trying", awserr.Brief(err))
	}
	if time.Since(w.silent) < w.o.d.cfg.Limits.Outage {
		return nil
	}
	return awserr.Fault(ctx, err, w.o.op+": watch the stack")
}

// look reads new events and, when they or the clock ask for it, the stack. A
// status that is not final means that the operation goes on.
func (w *watcher) look(ctx context.Context) (*cfntypes.Stack, Status, error) {
	if err := w.poll(ctx); w.deleting && awserr.StackNotFound(err) {
		return nil, "DELETE_COMPLETE", nil
	} else if err != nil {
		return nil, "", err
	}
	if w.final == "" && time.Since(w.looked) < statusEvery {
		return nil, w.history.status, nil
	}
	first := w.looked.IsZero()
	w.looked = time.Now()
	if first && w.final == "" {
		return nil, w.history.status, nil
	}
	out, err := w.o.d.stacks.DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: aws.String(w.follows[0].arn)})
	if awserr.StackNotFound(err) || err == nil && (len(out.Stacks) == 0 || Status(out.Stacks[0].StackStatus).Deleted()) {
		if w.deleting {
			return nil, "DELETE_COMPLETE", nil
		}
		return nil, "", w.o.disappeared(w.deletion)
	}
	if err != nil {
		return nil, "", err
	}
	stack := &out.Stacks[0]
	return stack, w.judge(stack), nil
}

// judge returns the status of our operation, given the stack as read now.
func (w *watcher) judge(stack *cfntypes.Stack) Status {
	status := Status(stack.StackStatus)
	switch {
	case w.final != "" && (status == w.final || time.Since(w.finalAt) > lag):
		return w.final
	case w.final != "":
		return "" // the read lags behind the event
	case status.InProgress():
		w.began = true
		return status
	case w.began && status.Terminal(), time.Since(w.started) > staleRead && status.Terminal():
		return status
	default:
		return ""
	}
}

// poll reads what is new of every followed stack.
func (w *watcher) poll(ctx context.Context) error {
	for i := 0; i < len(w.follows); i++ { //nolint:intrange // it grows while nested stacks appear
		f := w.follows[i]
		if f.ended {
			continue
		}
		events, err := w.fetch(ctx, f)
		if err != nil {
			if i > 0 && awserr.StackNotFound(err) {
				f.ended = true
				continue
			}
			return err
		}
		for _, e := range events {
			w.take(f, i == 0, e)
		}
	}
	return nil
}

// fetch returns the unseen events of one stack, oldest first.
func (w *watcher) fetch(ctx context.Context, f *follow) ([]cfntypes.StackEvent, error) {
	var out []cfntypes.StackEvent
	in := &cfnsdk.DescribeStackEventsInput{StackName: aws.String(f.arn)}
	newest := ""
pages:
	for range maxEventPages {
		page, err := w.o.d.stacks.DescribeStackEvents(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, e := range page.StackEvents {
			id := aws.ToString(e.EventId)
			if newest == "" {
				newest = id
			}
			if id == f.newest || aws.ToTime(e.Timestamp).Before(w.since) {
				break pages
			}
			out = append(out, e)
		}
		if page.NextToken == nil {
			break
		}
		in.NextToken = page.NextToken
	}
	if newest != "" {
		f.newest = newest
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out, nil
}

// take records one event of our operation.
func (w *watcher) take(f *follow, root bool, e cfntypes.StackEvent) {
	token := aws.ToString(e.ClientRequestToken)
	if root && !w.ours(token) {
		w.noticeDeletion(f, e)
		return
	}
	if w.since.IsZero() {
		w.since = aws.ToTime(e.Timestamp)
	}
	status := Status(e.ResourceStatus)
	physical := aws.ToString(e.PhysicalResourceId)
	isStack := aws.ToString(e.ResourceType) == stackType
	itself := isStack && physical == aws.ToString(e.StackId)
	switch {
	case itself && status.Reviewing():
		return
	case itself && root:
		w.noticeDeletion(f, e)
		w.began = w.began || token == w.token
		w.history.status = status
		if status.Terminal() {
			w.final, w.finalAt = status, time.Now()
		}
	case itself:
		f.ended = status.Terminal()
	case isStack && strings.HasPrefix(physical, "arn:"):
		w.follow(physical, append(append([]string{}, f.ids...), aws.ToString(e.LogicalResourceId)), status.InProgress())
	}
	w.history.add(w.event(f, e), isStack, f.depth(isStack && !itself))
	w.o.d.cfg.OnEvent(w.history.events[len(w.history.events)-1])
}

// depth says in how many nested stacks the events of f are; one about a stack
// nested in it is in one more.
func (f *follow) depth(nests bool) int {
	if nests {
		return len(f.ids) + 1
	}
	return len(f.ids)
}

// noticeDeletion keeps when somebody began to delete the root stack.
func (w *watcher) noticeDeletion(f *follow, e cfntypes.StackEvent) {
	if e.ResourceStatus == cfntypes.ResourceStatusDeleteInProgress && aws.ToString(e.PhysicalResourceId) == aws.ToString(e.StackId) {
		begun := w.event(f, e)
		w.deletion = &begun
	}
}

// ours reports whether an event of the root stack belongs to our operation.
// One without a token does if it is late enough.
func (w *watcher) ours(token string) bool {
	return token == w.token || token == "" && !w.since.IsZero()
}

// follow adds a nested stack to those whose events are read, or reads it again
// if something new began there.
func (w *watcher) follow(arn string, ids []string, began bool) {
	for _, f := range w.follows {
		if f.arn == arn {
			f.ended = f.ended && !began
			return
		}
	}
	w.follows = append(w.follows, &follow{arn: arn, ids: ids})
}

func (w *watcher) event(f *follow, e cfntypes.StackEvent) Event {
	ids := append(append([]string{}, f.ids...), aws.ToString(e.LogicalResourceId))
	out := Event{
		Time: aws.ToTime(e.Timestamp), Stack: w.o.in.StackName, Status: string(e.ResourceStatus), Type: aws.ToString(e.ResourceType),
		LogicalID: strings.Join(ids, "/"), Reason: signedURL(aws.ToString(e.ResourceStatusReason)),
	}
	if path := w.o.in.ConstructPath; path != nil {
		out.Path = path(ids...)
	}
	if source := w.o.in.Source; source != nil {
		out.Source = source(ids...)
	}
	return out
}

// conclude turns the end of the operation into the result.
func (o *operation) conclude(ctx context.Context, w *watcher, stack *cfntypes.Stack, status Status) (Result, error) {
	if status.Succeeded() {
		o.warnings = append(o.warnings, w.history.leftovers()...)
		return o.succeed(ctx, stack)
	}
	return Result{}, o.failure(ctx, w, stack, status)
}

// failure is the fault for an operation that ended badly, with its cause.
func (o *operation) failure(ctx context.Context, w *watcher, stack *cfntypes.Stack, status Status) error {
	why := w.history.explain(status, aws.ToString(stack.StackStatusReason))
	if found := o.validation(ctx, why.text, w.follows[0].arn); found != "" {
		why = explanation{text: found + "; " + why.text, remedy: remedyFor(found)}
	}
	remedy := cmp.Or(why.remedy, "Mend the cause") + ", then push again or retry the run"
	if status.Unusable() {
		remedy += "; what is left of the stack is deleted then and created anew"
	}
	if status.Paused() {
		remedy = status.advice()
		if why.remedy != "" {
			remedy = why.remedy + ". " + remedy
		}
	}
	return fault.Newf(fault.User, fault.StackFailed, o.op, remedy, "%s", why.text)
}

// stackNameOf returns the name in a stack's ARN.
func stackNameOf(arn string) string {
	parts := strings.Split(arn, "/")
	if len(parts) < 2 {
		return arn
	}
	return parts[1]
}
