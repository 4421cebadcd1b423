package deploy

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// schedule says which stacks of one app may begin. They are named by their
// place in configured order.
type schedule struct {
	stacks []*assembly.Stack
	limit  int
	state  []progress
}

// progress is how far a stack has come.
type progress uint8

const (
	waiting progress = iota
	running
	succeeded
	failed
)

func newSchedule(stacks []*assembly.Stack, limit int) *schedule {
	return &schedule{stacks: stacks, limit: max(1, limit), state: make([]progress, len(stacks))}
}

// next returns the first stack that may begin now; ok is false if none may.
// One at a time they keep the configured order, and none begins after a
// failure. Several at a time each waits for what it depends on.
func (s *schedule) next() (i int, ok bool) {
	if s.count(running) >= s.limit || s.limit == 1 && s.count(failed) > 0 {
		return 0, false
	}
	for i, state := range s.state {
		if state == waiting && s.free(i) {
			return i, true
		}
	}
	return 0, false
}

// free reports whether all that a stack depends on has been deployed. What is
// of an earlier part of the environment is not among the stacks.
func (s *schedule) free(i int) bool {
	for _, dependency := range s.stacks[i].Dependencies {
		if at := slices.Index(s.stacks, dependency); at >= 0 && s.state[at] != succeeded {
			return false
		}
	}
	return true
}

func (s *schedule) count(state progress) int {
	n := 0
	for _, other := range s.state {
		if other == state {
			n++
		}
	}
	return n
}

// names lists the stacks in a state.
func (s *schedule) names(state progress) string {
	var out []string
	for i, stack := range s.stacks {
		if s.state[i] == state {
			out = append(out, stack.Name)
		}
	}
	return strings.Join(out, ", ")
}

// deployAll deploys stacks of one app as their schedule says, and returns when
// none is under way any more. Once ctx has ended none begins.
func (d *deployment) deployAll(ctx context.Context, s *selection, stacks []*assembly.Stack) error {
	plan, errs := newSchedule(stacks, d.target.Concurrency), make([]error, len(stacks))
	for _, stack := range stacks {
		d.order = append(d.order, stack.Name)
	}
	ended := make(chan int)
	for {
		for i, ok := plan.next(); ok && ctx.Err() == nil; i, ok = plan.next() {
			plan.state[i] = running
			d.count++
			d.env.Progress(fmt.Sprintf("%s: deploying %s (%d/%d)", d.target.Name, plan.names(running), d.count, d.total))
			go func() {
				defer func() { ended <- i }()
				errs[i] = d.guarded(func() error { return d.deployStack(ctx, s, stacks[i]) })
			}()
		}
		if plan.count(running) == 0 {
			break
		}
		i := <-ended
		plan.state[i] = succeeded
		if errs[i] != nil {
			plan.state[i] = failed
			d.say("%s failed: %v", stacks[i].Name, errs[i])
		}
	}
	return d.verdict(ctx, plan, errs)
}

// guarded turns a panic of f into an error: one stack must not take the others
// with it.
func (d *deployment) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.env.Logger.Error("panic", "value", p, "stack", string(debug.Stack()))
			err = fault.Newf(fault.System, fault.Internal, "deploy "+d.target.Name, "Report it with the log of the plugin", "panic: %v", p)
		}
	}()
	return f()
}

// verdict makes one error of those of the stacks, and names what was not
// deployed because of them.
func (d *deployment) verdict(ctx context.Context, plan *schedule, errs []error) error {
	op := "deploy " + d.target.Name
	err := fault.Join(op, "Mend all of them, then push again or retry the run", errs...)
	left := plan.names(waiting)
	if err == nil && left == "" {
		return nil
	}
	if err == nil { // ended between two stacks
		return awserr.Ended(ctx, op)
	}
	if left != "" && d.target.Concurrency > 1 {
		f := *fault.From(err)
		f.Err = fmt.Errorf("%w; not deployed: %s", f.Err, left)
		return &f
	}
	return err
}
