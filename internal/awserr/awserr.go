package awserr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Code returns the error code the service gave, such as "ValidationError";
// empty if err is no answer of a service.
func Code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// Text returns the message the service gave, without the SDK's wrapping;
// err's own text if it is no answer of a service.
func Text(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorMessage()
	}
	return err.Error()
}

// AccessDenied reports whether the service refused for lack of permission.
func AccessDenied(err error) bool {
	return slices.Contains([]string{
		"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "AllAccessDisabled", "NotAuthorized",
	}, Code(err))
}

// ExpiredCredentials reports whether the credentials or the identity token
// are past their end.
func ExpiredCredentials(err error) bool {
	return slices.Contains([]string{"ExpiredToken", "ExpiredTokenException", "RequestExpired"}, Code(err))
}

// Throttled reports whether the service asked to come back later.
func Throttled(err error) bool {
	return slices.Contains([]string{
		"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "PriorRequestNotComplete", "BandwidthLimitExceeded",
	}, Code(err))
}

// Unreachable reports whether no service answered at all: connection refused
// or reset, unknown host, time-out. A context that ended is not that.
func Unreachable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || Code(err) != "" {
		return false
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return true
	}
	// Not net.Error: every error of a file system is one, too.
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.ErrUnexpectedEOF)
}

// Temporary reports whether the same request may succeed later as it is:
// throttled, a server error, or no answer.
func Temporary(err error) bool {
	if Throttled(err) || Unreachable(err) {
		return true
	}
	response, ok := errors.AsType[*awshttp.ResponseError](err)
	return ok && response.HTTPStatusCode() >= http.StatusInternalServerError
}

// StackNotFound reports whether CloudFormation does not know the stack, which
// it says by text only.
func StackNotFound(err error) bool {
	return Code(err) == "ValidationError" && strings.Contains(Text(err), "does not exist")
}

// ChangeSetNotFound reports whether CloudFormation does not know the change
// set, or not even its stack.
func ChangeSetNotFound(err error) bool {
	return slices.Contains([]string{"ChangeSetNotFound", "ChangeSetNotFoundException"}, Code(err)) || StackNotFound(err)
}

// AlreadyExists reports whether a thing of that name is there already.
func AlreadyExists(err error) bool {
	return slices.Contains([]string{"AlreadyExistsException", "AlreadyExists"}, Code(err))
}

// ChangeSetNotExecutable reports whether the change set is in a status in
// which it cannot be executed, for instance because it already was.
func ChangeSetNotExecutable(err error) bool {
	return slices.Contains([]string{"InvalidChangeSetStatus", "InvalidChangeSetStatusException"}, Code(err))
}

// StackBusy reports whether the stack is held by another operation.
func StackBusy(err error) bool {
	if Code(err) == "OperationInProgressException" {
		return true
	}
	return slices.Contains([]string{"ValidationError", "InvalidChangeSetStatus"}, Code(err)) &&
		regexp.MustCompile(`_IN_PROGRESS state and can not be updated|cannot be deleted while in status \w+_IN_PROGRESS`).MatchString(Text(err))
}

// NoChanges reports whether the reason of a failed change set says that there
// is nothing to change.
func NoChanges(reason string) bool {
	return strings.HasPrefix(reason, "The submitted information didn't contain changes.") ||
		strings.HasPrefix(reason, "No updates are to be performed.")
}

// Brief returns err with the service's code and message as its text, without
// the SDK's wrapping. What it wraps stays reachable. Brief(nil) is nil.
func Brief(err error) error {
	if err == nil || Code(err) == "" {
		return err
	}
	return &briefError{err: err}
}

type briefError struct{ err error }

func (e *briefError) Error() string {
	text := Code(e.err)
	if message := Text(e.err); message != "" {
		text += ": " + message
	}
	if response, ok := errors.AsType[*awshttp.ResponseError](e.err); ok && response.RequestID != "" {
		text += fmt.Sprintf(" (request %s)", response.RequestID)
	}
	return text
}

func (e *briefError) Unwrap() error { return e.err }

// Fault classifies err, which came from doing op against AWS. A context that
// ended is reported by its cause, a *fault.Fault is returned as it is, and
// Fault(nil) is nil.
//
// Errors: AWSUnavailable, CredentialsMissing, AWSRejected, Cancelled.
func Fault(ctx context.Context, err error, op string) error {
	if err == nil {
		return nil
	}
	// A request that the end of ctx broke off has the cause of that in its
	// chain, wrapped in what only the SDK's authors read.
	_, requested := errors.AsType[*smithy.OperationError](err)
	if _, ok := errors.AsType[*fault.Fault](err); ok && (!requested || ctx.Err() == nil) {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return Ended(ctx, op)
	case Unreachable(err):
		return fault.Newf(fault.Transient, fault.AWSUnavailable, op, "Check that the endpoint can be reached from the cluster, then retry the run", "no answer from AWS: %w", err)
	case ExpiredCredentials(err):
		return fault.Newf(fault.User, fault.CredentialsMissing, op, "Renew the identity of the service account, then retry the run", "the credentials have expired: %w", Brief(err))
	case Temporary(err):
		return fault.Newf(fault.Transient, fault.AWSUnavailable, op, "Retry the run", "AWS did not serve the request: %w", Brief(err))
	case AccessDenied(err):
		return fault.Newf(fault.User, fault.AWSRejected, op, "Grant the role the permission it lacks", "%w", Brief(err))
	default:
		return fault.Newf(fault.User, fault.AWSRejected, op, "", "%w", Brief(err))
	}
}

// Ended is the fault for work that stopped because ctx ended: the cause if
// that is a fault, otherwise Cancelled.
func Ended(ctx context.Context, op string) error {
	cause := context.Cause(ctx)
	class, reason, remedy := fault.Cancelled, fault.Cancellation, ""
	if f, ok := errors.AsType[*fault.Fault](cause); ok {
		class, reason, remedy, cause = f.Class, f.Reason, f.Remedy, f.Err
	}
	return &fault.Fault{Class: class, Reason: reason, Op: op, Remedy: remedy, Err: fmt.Errorf("stopped: %w", cause)}
}
