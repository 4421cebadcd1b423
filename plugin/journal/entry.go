package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

var (
	// ErrFenced is a write by a process whose book another one has claimed.
	// Whoever gets it must stop acting and must not answer any more. It comes
	// inside a *fault.Fault with reason JournalConflict.
	ErrFenced = errors.New("another process has claimed the journal")
	// ErrUnknown is an entry that was never begun.
	ErrUnknown = errors.New("no such entry in the journal")
	// ErrEnded is an effect announced after the entry's end.
	ErrEnded = errors.New("entry has ended")
)

// Limits of one effect.
const (
	maxEffectBytes = 4 << 10
	maxEffects     = 256
)

var effectName = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// Entry is what the journal has about one execution.
type Entry struct {
	// Key is task.Request.Key of the execution.
	Key string `json:"key"`
	// What the execution is, for people and for reading earlier tries.
	Stage       string `json:"stage"`
	Environment string `json:"environment,omitempty"`
	Node        string `json:"node"`
	Attempt     int    `json:"attempt"`
	Epoch       string `json:"epoch"`
	// Digest identifies the step body the execution was started with.
	Digest string `json:"digest"`
	// StartedAt is when the execution was first begun, by whichever process.
	StartedAt time.Time `json:"startedAt"`
	// Starts counts the processes that began or resumed it.
	Starts int `json:"starts"`
	// PodUID is the pod that began or resumed it last.
	PodUID string `json:"podUID,omitempty"`
	// Effects are the stage's own facts, by name.
	Effects map[string]json.RawMessage `json:"effects,omitempty"`
	// Final is the reply that ended it, as it was sent; nil before.
	Final json.RawMessage `json:"final,omitempty"`
	// Phase is the final reply's phase; empty before.
	Phase   string     `json:"phase,omitempty"`
	EndedAt *time.Time `json:"endedAt,omitempty"`
}

// Ended reports whether the entry has its final reply.
func (e *Entry) Ended() bool { return e.Final != nil }

func (e *Entry) clone() Entry {
	c := *e
	c.Effects = maps.Clone(e.Effects)
	c.Final = slices.Clone(e.Final)
	return c
}

// Book is the journal of one run. Its methods may be called concurrently.
//
// Errors: a *fault.Fault with reason JournalConflict (an ErrFenced) once
// another process has the book; KubernetesRejected or Internal if a write did
// not get through in time. ctx bounds the wait, not the write: a call that
// gave up may still have been recorded.
type Book interface {
	// Begin records that the execution e.Key is about to act, or to act again,
	// and returns the entry as it stands. An entry that has ended is returned
	// as it is: the caller must answer with its Final and not act.
	Begin(ctx context.Context, e Entry) (Entry, error)
	// End records the final reply of the execution. Only the first one counts:
	// the entry that is returned holds it.
	End(ctx context.Context, key string, final []byte, phase string, at time.Time) (Entry, error)
	Effects
	// Entry returns the entry of key.
	Entry(ctx context.Context, key string) (Entry, bool, error)
	// Entries returns all entries, of all tries of the run, oldest first.
	Entries(ctx context.Context) ([]Entry, error)
	// Wait returns once the context of Open has ended and nothing is written
	// any more.
	Wait()
}

// Effects is the part of a Book that belongs to the stages.
type Effects interface {
	// PutEffect records value (JSON) under name. The limits are those of
	// task.Effects.
	PutEffect(ctx context.Context, key, name string, value []byte) error
	// Effect returns the value recorded under name.
	Effect(ctx context.Context, key, name string) ([]byte, bool, error)
}

// Own is the part of a book that belongs to one execution. It implements
// task.Effects.
type Own struct {
	Book Book
	Key  string
}

var _ task.Effects = Own{}

// Put implements task.Effects.
func (o Own) Put(ctx context.Context, name string, value []byte) error {
	return o.Book.PutEffect(ctx, o.Key, name, value)
}

// Get implements task.Effects.
func (o Own) Get(ctx context.Context, name string) ([]byte, bool, error) {
	return o.Book.Effect(ctx, o.Key, name)
}

// Earlier implements task.Effects.
func (o Own) Earlier(ctx context.Context, name string) ([][]byte, error) {
	is, ok, err := o.Book.Entry(ctx, o.Key)
	if err != nil || !ok {
		return nil, err
	}
	entries, err := o.Book.Entries(ctx)
	if err != nil {
		return nil, err
	}
	var values [][]byte
	for _, was := range entries {
		if was.Key == o.Key || was.Stage != is.Stage || was.Environment != is.Environment {
			continue
		}
		if value, ok := was.Effects[name]; ok {
			values = append(values, value)
		}
	}
	return values, nil
}

// Journal opens books.
type Journal interface {
	// Open claims the book of run, which is created if there is none. The book
	// lives until ctx ends.
	Open(ctx context.Context, run task.Run) (Book, error)
}

// hash returns the first n hexadecimal digits of text's SHA-256: texts such as
// keys are too long, and have the wrong letters, for names.
func hash(text string, n int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:n]
}

// Name returns the name of the book of the run with that UID.
func Name(uid string) string { return "aphex-journal-" + hash(uid, 16) }

func checkEffect(name string, value []byte) error {
	switch {
	case !effectName.MatchString(name):
		return fault.Newf(fault.System, fault.Internal, "record an effect", "", "effect is called %q: the name must match %s", name, effectName)
	case len(value) > maxEffectBytes:
		return fault.Newf(fault.System, fault.Internal, "record effect "+name, "", "it has %d bytes: at most %d are allowed", len(value), maxEffectBytes)
	case !json.Valid(value):
		return fault.Newf(fault.System, fault.Internal, "record effect "+name, "", "its value is not JSON")
	}
	return nil
}

func fenced(by writer) error {
	return fault.Wrap(fault.System, fault.JournalConflict, "write the run's journal",
		"Nothing needs to be done if a new agent pod has taken the run over",
		fmt.Errorf("pod %q claimed it as generation %d: %w", by.PodUID, by.Generation, ErrFenced))
}
