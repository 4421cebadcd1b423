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
	// depths say in how many nested stacks each event is; one that is about a
	// nested stack is in it.
	depths []int
	status Status
}

func (h *history) add(e Event, stack bool, depth int) {
	h.events = append(h.events, e)
	h.stacks = append(h.stacks, stack)
	h.depths = append(h.depths, depth)
}

// failed reports whether the i-th event is a failure of a resource itself, and
// whether it is merely the consequence of another's.
func (h *history) failed(i int) (failed, consequence bool) {
	e := h.events[i]
	if !strings.HasSuffix(e.Status, "_FAILED") || h.stacks[i] {
		return false, false
	}
	return true, cancellation().MatchString(e.Reason)
}

// failures are what went wrong in one operation, each list by time.
type failures struct {
	// forward are failures of resources that no other one caused, the root
	// cause first; backward are those of the rollback.
	forward, backward []*Event
	cancelled         int
}

// failures sorts the failing events. A failure after the stack turned back
// belongs to the rollback, which creates nothing.
func (h *history) failures() failures {
	var out failures
	var turned *time.Time
	for _, i := range h.byTime() {
		failed, consequence := h.failed(i)
		switch {
		case h.stacks[i] && h.depths[i] == 0 && strings.Contains(h.events[i].Status, "ROLLBACK"):
			if turned == nil {
				turned = &h.events[i].Time
			}
		case !failed:
		case consequence:
			out.cancelled++
		case turned != nil && h.events[i].Time.After(*turned) && h.events[i].Status != "CREATE_FAILED":
			out.backward = append(out.backward, &h.events[i])
		default:
			out.forward = append(out.forward, &h.events[i])
		}
	}
	return out
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

// explanation says why an operation failed and what to do about it.
type explanation struct{ text, remedy string }

// explain says why the stack ended in status, the root cause first.
func (h *history) explain(status Status, stackReason string) explanation {
	all := h.failures()
	var out explanation
	var related []*Event
	if len(all.forward) > 0 {
		first := all.forward[0]
		related = all.forward[1:]
		out = explanation{
			text: fmt.Sprintf("%s ended in %s: %s; the stack is %s; first failing event %s",
				first.subject(), first.Status, brief(first.Reason), status, first.Time.UTC().Format(time.TimeOnly+"Z")),
			remedy: first.remedy(),
		}
	} else {
		out = h.explainStack(status, stackReason)
	}
	for _, e := range related {
		if d, ok := deniedIn(e.Reason); ok {
			out.text += fmt.Sprintf("; related: %s was denied %s", e.subject(), d)
			break
		}
	}
	if n := len(related); n > 0 {
		out.text += fmt.Sprintf("; %d more %s", n, plural(n, "failure", "failures"))
	}
	if n := len(all.backward); n > 0 {
		e := all.backward[0]
		out.text += fmt.Sprintf("; the rollback failed in turn: %s ended in %s: %s", e.subject(), e.Status, brief(e.Reason))
		if n > 1 {
			out.text += fmt.Sprintf(", and %d more", n-1)
		}
	}
	if n := all.cancelled; n > 0 {
		out.text += fmt.Sprintf("; %d later %s", n, plural(n, "event is a cancellation", "events are cancellations"))
	}
	return out
}

// explainStack is for an operation that failed without a resource's fault: the
// stack itself says why, a nested one before those around it.
func (h *history) explainStack(status Status, stackReason string) explanation {
	text := fmt.Sprintf("the stack ended in %s", status)
	for _, i := range h.byTime() {
		e := h.events[i]
		if !h.stacks[i] || e.Reason == "" || !strings.Contains(e.Status, "ROLLBACK") && !strings.HasSuffix(e.Status, "_FAILED") {
			continue
		}
		said := brief(e.Reason)
		if depth := h.depths[i]; depth > 0 {
			if ids := strings.Split(e.LogicalID, "/"); len(ids) > depth { // of the nested stack itself
				e.LogicalID, e.Path = strings.Join(ids[:depth], "/"), ""
			}
			said = "nested stack " + e.name() + ": " + said
		}
		return explanation{text + ": " + said, remedyFor(e.Reason)}
	}
	if stackReason != "" {
		return explanation{text + ": " + brief(stackReason), remedyFor(stackReason)}
	}
	return explanation{text: text + "; its events name no cause"}
}

// leftovers are the resources that the clean-up after a success could not
// delete.
func (h *history) leftovers() []string {
	var out []string
	for i, e := range h.events {
		if e.Status == "DELETE_FAILED" && !h.stacks[i] {
			out = append(out, fmt.Sprintf("%s was replaced or removed but could not be deleted: %s", e.subject(), brief(e.Reason)))
		}
	}
	return out
}

// subject is the resource with its type and, if it is known, the line of the
// app that made it.
func (e Event) subject() string {
	text := fmt.Sprintf("resource %s (%s", e.name(), e.Type)
	if e.Source != "" {
		text += ", made at " + e.Source
	}
	return text + ")"
}

// name is the construct path with the logical id, or the id alone.
func (e Event) name() string {
	if e.Path == "" {
		return e.LogicalID
	}
	return e.Path + " [" + e.LogicalID + "]"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
