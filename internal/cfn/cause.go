package cfn

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// history is what happened during one operation, in order.
type history struct {
	events []Event
	// stacks marks the events that are about a stack as a whole.
	stacks []bool
	status Status
}

func (h *history) add(e Event, stack bool) {
	h.events = append(h.events, e)
	h.stacks = append(h.stacks, stack)
}

// failed reports whether the i-th event is a failure of a resource itself, and
// whether it is merely the consequence of another's.
func (h *history) failed(i int) (failed, consequence bool) {
	e := h.events[i]
	if !strings.HasSuffix(e.Status, "_FAILED") || h.stacks[i] {
		return false, false
	}
	reason := strings.ToLower(e.Reason)
	return true, strings.Contains(reason, "cancelled") || strings.Contains(reason, "canceled")
}

// cause returns the first failure that no other one caused, and how many
// failures are cancellations.
func (h *history) cause() (first *Event, others, cancelled int) {
	for _, i := range h.byTime() {
		failed, consequence := h.failed(i)
		switch {
		case !failed:
		case consequence:
			cancelled++
		case first == nil:
			first = &h.events[i]
		default:
			others++
		}
	}
	return first, others, cancelled
}

// byTime orders the events of all stacks; those of one stack keep theirs.
func (h *history) byTime() []int {
	order := make([]int, len(h.events))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return h.events[a].Time.Compare(h.events[b].Time) })
	return order
}

// explain says in one sentence why the stack ended in status.
func (h *history) explain(status Status, stackReason string) string {
	first, others, cancelled := h.cause()
	if first == nil {
		text := fmt.Sprintf("the stack ended in %s", status)
		if reason := h.lastStackReason(); reason != "" {
			return text + ": " + reason
		}
		if stackReason != "" {
			return text + ": " + stackReason
		}
		return text + "; its events name no cause"
	}
	text := fmt.Sprintf("resource %s (%s) ended in %s: %s; the stack is %s; first failing event %s",
		first.name(), first.Type, first.Status, orNone(first.Reason), status, first.Time.UTC().Format(time.TimeOnly+"Z"))
	if others > 0 {
		text += fmt.Sprintf("; %d more %s", others, plural(others, "failure", "failures"))
	}
	if cancelled > 0 {
		text += fmt.Sprintf("; %d later %s", cancelled, plural(cancelled, "event is a cancellation", "events are cancellations"))
	}
	return text
}

// lastStackReason is what CloudFormation said when the stack turned back.
func (h *history) lastStackReason() string {
	for i, e := range h.events {
		if h.stacks[i] && e.Reason != "" && (strings.Contains(e.Status, "ROLLBACK") || strings.HasSuffix(e.Status, "_FAILED")) {
			return e.Reason
		}
	}
	return ""
}

// leftovers are the resources that the clean-up after a success could not
// delete.
func (h *history) leftovers() []string {
	var out []string
	for i, e := range h.events {
		if e.Status == "DELETE_FAILED" && !h.stacks[i] {
			out = append(out, fmt.Sprintf("resource %s (%s) was replaced or removed but could not be deleted: %s", e.name(), e.Type, orNone(e.Reason)))
		}
	}
	return out
}

// name is the construct path with the logical id, or the id alone.
func (e Event) name() string {
	if e.Path == "" {
		return e.LogicalID
	}
	return e.Path + " [" + e.LogicalID + "]"
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
