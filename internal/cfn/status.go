package cfn

import "strings"

// Status is a stack's status as CloudFormation writes it.
type Status string

// InProgress reports whether an operation is running. A stack in review has
// none, and the clean-up after an update still counts.
func (s Status) InProgress() bool {
	return strings.HasSuffix(string(s), "_IN_PROGRESS") && !s.Reviewing()
}

// Reviewing reports whether the stack consists of change sets only.
func (s Status) Reviewing() bool { return s == "REVIEW_IN_PROGRESS" }

// Terminal reports whether an operation has ended in this status.
func (s Status) Terminal() bool { return s != "" && !s.InProgress() && !s.Reviewing() }

// Succeeded reports whether the status is the good end of a deployment.
func (s Status) Succeeded() bool {
	return s == "CREATE_COMPLETE" || s == "UPDATE_COMPLETE" || s == "IMPORT_COMPLETE"
}

// Unusable reports whether the stack's creation failed for good: it can only
// be deleted.
func (s Status) Unusable() bool { return s == "ROLLBACK_COMPLETE" || s == "ROLLBACK_FAILED" }

// Paused reports whether the stack stands in a failed state in which
// CloudFormation accepts no change set before somebody decides what to do.
func (s Status) Paused() bool {
	return strings.HasSuffix(string(s), "_FAILED") && !s.Unusable()
}

// Deleted reports whether the stack is gone.
func (s Status) Deleted() bool { return s == "DELETE_COMPLETE" }

// advice says what a person can do about a paused stack.
func (s Status) advice() string {
	switch s {
	case "UPDATE_ROLLBACK_FAILED":
		return "Mend what keeps the rollback from finishing, run `aws cloudformation continue-update-rollback` on the stack, then retry the run"
	case "UPDATE_FAILED", "CREATE_FAILED":
		return "Run `aws cloudformation rollback-stack` on the stack (its last operation was started with rollback disabled), then retry the run"
	case "DELETE_FAILED":
		return "Finish deleting the stack (empty or retain the resources that block it), then retry the run"
	default:
		return "Bring the stack back to a stable state in the CloudFormation console, then retry the run"
	}
}
