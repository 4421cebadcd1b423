package awsauth

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Sessions hands out credentials of target accounts, each proved once. It is
// safe for concurrent use.
type Sessions struct {
	base aws.Config
	name string

	caller once[Identity]

	mu     sync.Mutex
	proved map[string]*once[Session]
}

// once is what is asked for until there is an answer; whoever comes meanwhile
// waits for it.
type once[T any] struct {
	mu    sync.Mutex
	known *T
}

func (o *once[T]) get(ask func() (T, error)) (*T, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		got, err := ask()
		if err != nil {
			return nil, err
		}
		o.known = &got
	}
	return o.known, nil
}

// NewSessions returns sessions on top of base; name is the session name of
// every role assumed, see SessionName.
func NewSessions(base aws.Config, name string) *Sessions {
	return &Sessions{base: base, name: name, proved: map[string]*once[Session]{}}
}

// Session is a set of credentials whose account was proved.
type Session struct {
	// Config has the target's region and credentials that renew themselves.
	Config aws.Config
	// Role is the ARN of the role behind them; empty for the process's own.
	Role string
	// Own says that what they give is the process's own rights: there was no
	// role, it could not be assumed, or it is the one the process has already.
	Own bool
	// Denied says why, "role … could not be assumed (…)"; empty where no role
	// was asked for, or another one is used.
	Denied string
	// Warning says so, and what is used instead.
	Warning string
}

// Caller returns the process's own identity; it is asked for once.
//
// Errors: those of the function Caller.
func (s *Sessions) Caller(ctx context.Context) (Identity, error) {
	id, err := s.caller.get(func() (Identity, error) { return Caller(ctx, s.base) })
	if err != nil {
		return Identity{}, err
	}
	return *id, nil
}

// For returns credentials for target through role, or the process's own if
// role is nil. Nothing has been written anywhere before it returns.
//
// A role that cannot be assumed, and was not Chosen, is passed over with a
// warning if the process's own credentials already belong to the account.
//
// Errors: RoleDenied names the role, who asked and what STS said;
// AccountMismatch; CredentialsMissing; AWSUnavailable.
func (s *Sessions) For(ctx context.Context, target Target, role *Role) (Session, error) {
	session, err := s.of(sessionKey(target, role)).get(func() (Session, error) {
		caller, err := s.Caller(ctx)
		if err != nil {
			return Session{}, err
		}
		return s.prove(ctx, target, role, caller)
	})
	if err != nil {
		return Session{}, err
	}
	return *session, nil
}

// of returns the place of a session.
func (s *Sessions) of(key string) *once[Session] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proved[key] == nil {
		s.proved[key] = &once[Session]{}
	}
	return s.proved[key]
}

func (s *Sessions) prove(ctx context.Context, target Target, role *Role, caller Identity) (Session, error) {
	own := Session{Config: s.base.Copy(), Own: true}
	own.Config.Region = target.Region
	if role == nil {
		return own, target.match(caller, "")
	}
	cfg, err := Assume(s.base, *role, target.Region, s.name)
	if err != nil {
		return Session{}, err
	}
	op := fmt.Sprintf("assume role %s for %s", role.ARN, target)
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return s.fallback(ctx, err, op, target, role, caller, own)
	}
	if err := AssertAccount(ctx, cfg, target, role.ARN); err != nil {
		return Session{}, err
	}
	session := Session{Config: cfg, Role: role.ARN}
	if caller.Is(role.ARN) {
		session.Own, session.Denied = true, fmt.Sprintf("role %s is the pipeline's own", role.ARN)
	}
	return session, nil
}

// fallback decides what a role that could not be assumed means.
func (s *Sessions) fallback(ctx context.Context, err error, op string, target Target, role *Role, caller Identity, own Session) (Session, error) {
	if ctx.Err() != nil || awserr.ExpiredCredentials(err) || awserr.Temporary(err) {
		return Session{}, awserr.Fault(ctx, err, op)
	}
	remedy := fmt.Sprintf("Check that the role exists and that its trust policy lets %s assume it (with the external id, if it asks for one)", caller.ARN)
	if !role.Chosen {
		if caller.Account == target.Account {
			own.Denied = fmt.Sprintf("role %s could not be assumed (%v)", role.ARN, awserr.Brief(err))
			own.Warning = fmt.Sprintf("%s; going on as %s, which belongs to the same account", own.Denied, caller.ARN)
			return own, nil
		}
		remedy += fmt.Sprintf(", and that the environment is bootstrapped: cdk bootstrap aws://%s/%s --trust %s", target.Account, target.Region, caller.Account)
	}
	return Session{}, fault.Newf(fault.User, fault.RoleDenied, op, remedy, "STS refuses it to %s: %w", caller.ARN, awserr.Brief(err))
}

func sessionKey(target Target, role *Role) string {
	key, err := json.Marshal([]any{target.Account, target.Region, role})
	if err != nil { // a role's options came from JSON
		return fmt.Sprintf("%v %v", target, role)
	}
	return string(key)
}
