package kube

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// What callers branch on. The API server's own text stays in the chain.
var (
	// ErrNotFound is an object (or its namespace or kind) that is not there.
	ErrNotFound = errors.New("not found")
	// ErrConflict is a write based on an outdated version, against another
	// object of the same name, or on fields that somebody else owns.
	ErrConflict = errors.New("conflict")
	// ErrExists is a creation of an object that is already there.
	ErrExists = errors.New("already exists")
	// ErrForbidden is a call the service account has no right to, or that an
	// admission policy refused. Trying again does not help.
	ErrForbidden = errors.New("forbidden")
)

// classify wraps err with what was being done and, where it has one, its class.
func classify(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	op := fmt.Sprintf(format, args...)
	if class := classOf(err); class != nil {
		return fmt.Errorf("%s: %w: %w", op, class, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func classOf(err error) error {
	switch {
	case apierrors.IsNotFound(err), apierrors.IsGone(err):
		return ErrNotFound
	case apierrors.IsAlreadyExists(err):
		return ErrExists
	case apierrors.IsConflict(err):
		return ErrConflict
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return ErrForbidden
	}
	return nil
}

// Fault makes a fault of what the API server answered to op: the user's with
// remedy grant if a right is missing, else a transient one with remedy retry.
func Fault(op string, err error, grant, retry string) error {
	class, remedy := fault.Transient, retry
	if errors.Is(err, ErrForbidden) {
		class, remedy = fault.User, grant
	}
	return fault.Wrap(class, fault.KubernetesRejected, op, remedy, err)
}
