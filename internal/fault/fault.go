package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Class says who has to act on a fault.
type Class uint8

// The classes. System is the zero value, so that a fault nobody classified
// is treated as our own.
const (
	// System is a defect of aphex or of the cluster it runs on.
	System Class = iota
	// User is something the reader can mend: code, configuration, permissions.
	User
	// Transient is expected to pass: throttling, an endpoint that is away.
	Transient
	// Cancelled means that somebody or a deadline ended the work.
	Cancelled
)

// String returns the class as used in logs: "system", "user", "transient" or
// "cancelled".
func (c Class) String() string {
	switch c {
	case System:
		return "system"
	case User:
		return "user"
	case Transient:
		return "transient"
	case Cancelled:
		return "cancelled"
	}
	return "unknown"
}

// Fault is an error with everything a person needs to act on it.
//
// The zero value is not useful: Reason and Err are required.
type Fault struct { //nolint:errname // everybody says Fault; Error would be said twice
	// Class says who has to act.
	Class Class
	// Reason is the stable, documented code of the fault.
	Reason Reason
	// Op is what was being done: a verb and its object, such as
	// "deploy stack prod-api (eu-west-1)". No trailing full stop.
	Op string
	// Remedy is an imperative sentence that says what to do next. Empty only
	// if none is known.
	Remedy string
	// Err is what went wrong, with the offending value. Required.
	Err error
}

// Error returns "Op: Err". Reason and Remedy are added by the renderings; the
// Reason stands in for a missing Err, as in a target of errors.Is.
func (f *Fault) Error() string {
	cause := string(f.Reason)
	if f.Err != nil {
		cause = f.Err.Error()
	}
	if f.Op == "" {
		return cause
	}
	return f.Op + ": " + cause
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Is reports whether target is a Fault with the same Reason.
func (f *Fault) Is(target error) bool {
	other, ok := target.(*Fault) // Is is called once per link of the chain
	return ok && other.Reason == f.Reason
}

// Newf returns a Fault whose cause is the formatted text; %w works as in
// fmt.Errorf.
func Newf(class Class, reason Reason, op, remedy, format string, args ...any) *Fault {
	return &Fault{Class: class, Reason: reason, Op: op, Remedy: remedy, Err: fmt.Errorf(format, args...)}
}

// Wrap returns a Fault around err, or nil if err is nil.
func Wrap(class Class, reason Reason, op, remedy string, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{Class: class, Reason: reason, Op: op, Remedy: remedy, Err: err}
}

// From returns the outermost Fault in err's chain. An error without one is
// wrapped as a System fault with reason Internal. From(nil) is nil.
func From(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Class: System, Reason: Internal, Err: err}
}

// Message renders err as one paragraph: what was being done, what went wrong,
// what to do next and the reason code in brackets. It neither redacts nor
// limits: the edges do.
func Message(err error) string {
	f := From(err)
	if f == nil {
		return ""
	}
	text := err.Error()
	if f.Remedy != "" {
		text += ". " + f.Remedy
	}
	return fmt.Sprintf("%s [%s]", text, f.Reason)
}

// Join makes one fault of several, one sentence each: with the class and
// reason of the first whose work was not merely cancelled, else of the first.
// It returns nil without errors and a single error as it is. op and remedy are
// about all of them.
func Join(op, remedy string, errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	first := From(errs[0])
	if i := slices.IndexFunc(errs, func(err error) bool { return From(err).Class != Cancelled }); i >= 0 {
		first = From(errs[i])
	}
	f := &findings{}
	for i, err := range errs {
		f.texts = append(f.texts, fmt.Sprintf("(%d) %s", i+1, Message(err)))
	}
	return &Fault{Class: first.Class, Reason: first.Reason, Op: op, Remedy: remedy, Err: f}
}

// findings is the cause of a fault made of several.
type findings struct{ texts []string }

func (f *findings) Error() string {
	return fmt.Sprintf("%d findings: %s", len(f.texts), strings.Join(f.texts, "; "))
}

// Text renders err for a log: like Message, but what Join has put together one
// finding a line.
func Text(err error) string {
	text := Message(err)
	f, ok := errors.AsType[*findings](err)
	if !ok {
		return text
	}
	lines := fmt.Sprintf("%d findings:\n%s\n", len(f.texts), strings.Join(f.texts, "\n"))
	return strings.Replace(text, f.Error()+". ", lines, 1)
}
