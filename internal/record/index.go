package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/store"
)

const (
	// indexPrefix is where each run has an empty object whose name sorts by
	// the time of the trigger and has the run's UID and name: runs themselves
	// are found by UID only, and their prefix has every log and snapshot.
	indexPrefix = "index/runs/"
	// indexTime sorts as text.
	indexTime = "20060102T150405.000Z"
	// readAtOnce bounds how many records are read at the same time.
	readAtOnce = 8
)

func indexKey(run Run) string {
	key := indexPrefix + indexName(run.TriggeredAt, run.WorkflowID)
	if name := url.QueryEscape(run.WorkflowName); name != "" && len(name) <= maxIndexedName {
		key += nameMark + name
	}
	return key
}

const (
	// nameMark is between UID and name; no escaped name has it.
	nameMark = "="
	// maxIndexedName is more than any Workflow's name has; runs of `aphex task`
	// with longer ones are found by UID, which is the name there.
	maxIndexedName = 128
)

// indexed is what the index knows of a run.
type indexed struct {
	uid, name string
	triggered time.Time
}

// index lists the runs, the last triggered first. A run that has several
// entries, since its record was lost and made anew, or since an earlier version
// left its name out, is listed once, by the last of them.
func (r *Recorder) index(ctx context.Context) ([]indexed, error) {
	listed, err := r.store.List(ctx, indexPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	runs, seen := make([]indexed, 0, len(listed)), make(map[string]bool, len(listed))
	for _, object := range slices.Backward(listed) {
		key := strings.TrimPrefix(object.Key, indexPrefix)
		at, _, _ := strings.Cut(key, "_")
		run := indexed{uid: uidOf(key)}
		run.triggered, _ = time.Parse(indexTime, at) // of others it is not known
		if n := strings.LastIndex(run.uid, nameMark); n >= 0 {
			run.name, _ = url.QueryUnescape(run.uid[n+len(nameMark):]) // what is no name is nobody's
			run.uid = run.uid[:n]
		}
		if !seen[run.uid] {
			seen[run.uid] = true
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// Find returns the UIDs of the runs of that name, the latest first; a name that
// is itself the UID of a run stands for that one.
func (r *Recorder) Find(ctx context.Context, name string) ([]string, error) {
	runs, err := r.index(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, run := range runs {
		switch name {
		case run.uid:
			return []string{run.uid}, nil
		case run.name:
			found = append(found, run.uid)
		}
	}
	return found, nil
}

// indexName is the last part of a key in an index: names sort by the time at
// which the runs were triggered.
func indexName(triggered time.Time, uid string) string {
	return triggered.UTC().Format(indexTime) + "_" + uid
}

// uidOf is the run's UID in an indexName.
func uidOf(name string) string {
	_, uid, _ := strings.Cut(name, "_")
	return uid
}

// putIndex stores the empty object of an index.
func (r *Recorder) putIndex(ctx context.Context, key string) error {
	_, err := r.store.Put(ctx, key, strings.NewReader(""), store.PutOptions{ContentType: "text/plain"})
	return err
}

// putRun writes a run's record, findable.
func (r *Recorder) putRun(ctx context.Context, run Run) error {
	if err := r.putIndex(ctx, indexKey(run)); err != nil {
		return err
	}
	return r.put(ctx, RunKey(run.WorkflowID), run)
}

// Unread is a run whose record is there and cannot be read.
type Unread struct {
	UID string
	// Name is empty if it is not known.
	Name        string
	TriggeredAt time.Time
	Err         error
}

// Runs returns the records of the runs triggered last, the latest first, at
// most limit of them, and those of the same runs that are damaged. Stages of
// runs that are under way are those recorded so far.
func (r *Recorder) Runs(ctx context.Context, limit int) ([]Run, []Unread, error) {
	listed, err := r.index(ctx)
	if err != nil {
		return nil, nil, err
	}
	listed = listed[:min(len(listed), limit)]
	found, damage := make([]*Run, len(listed)), make([]error, len(listed))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for i, entry := range listed {
		group.Go(func() error {
			run, err := r.Show(ctx, entry.uid)
			switch {
			case errors.Is(err, store.ErrNotFound): // died in between, or was deleted
				return nil
			case errors.Is(err, store.ErrDamaged), errors.Is(err, errUnreadable):
				damage[i] = err
				return nil
			}
			found[i] = &run
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	runs, unread := make([]Run, 0, len(found)), []Unread(nil)
	for i, run := range found {
		switch {
		case run != nil:
			runs = append(runs, *run)
		case damage[i] != nil:
			unread = append(unread, Unread{UID: listed[i].uid, Name: listed[i].name, TriggeredAt: listed[i].triggered, Err: damage[i]})
		}
	}
	return runs, unread, nil
}

// Show reads a run's record; one that is not complete has the stages and
// artifacts recorded so far. The error wraps store.ErrNotFound if there is none.
func (r *Recorder) Show(ctx context.Context, uid string) (Run, error) {
	run, err := r.Run(ctx, uid)
	if err == nil && run.Artifacts == nil { // not finished, or closed by an onlooker
		run.Artifacts, err = r.total(ctx, uid)
	}
	if err != nil || run.CompletedAt != nil {
		return run, err
	}
	run.Stages, err = r.Stages(ctx, uid)
	return run, err
}

// Events are what CloudFormation said about one stack during a run, stored at
// EventsKey.
type Events struct {
	SchemaVersion string `json:"schema_version"`
	WorkflowID    string `json:"workflow_id"`
	Environment   string `json:"environment"`
	Account       string `json:"account"`
	Region        string `json:"region"`
	Stack         string `json:"stack"`
	// Epoch and Attempt tell the tries of the stage apart; records of earlier
	// versions lack them.
	Epoch   string `json:"epoch,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	// Events are in the order they happened. Truncated says that some were
	// left out: Omitted ones after the first OmittedAfter, or later ones in
	// records of earlier versions, which have neither.
	Events       []Event `json:"events"`
	Truncated    bool    `json:"truncated,omitempty"`
	Omitted      int     `json:"omitted,omitempty"`
	OmittedAfter int     `json:"omitted_after,omitempty"`
}

// Event is one step of a resource.
type Event struct {
	Time      time.Time `json:"time"`
	Status    string    `json:"status"`
	Type      string    `json:"resource_type"`
	LogicalID string    `json:"logical_id"`
	// Path is the construct path; empty if unknown.
	Path string `json:"construct_path,omitempty"`
	// Reason is CloudFormation's; often empty.
	Reason string `json:"reason,omitempty"`
}

// eventsPrefix is the common prefix of the events of all stacks of a run.
func eventsPrefix(uid string) string { return "runs/" + uid + "/events/" }

// EventsKey is the object key of a stack's events.
func EventsKey(uid, environment, stack string) string {
	return eventsPrefix(uid) + environment + "/" + stack + ".json"
}

// triesPrefix is the common prefix of what is kept of each try of a run.
func triesPrefix(uid string) string { return "runs/" + uid + "/tries/" }

// TryName names an attempt at a stage in keys: "20261124T060000Z-0". Letters,
// digits and dots are left of the epoch: keys shall need no quoting anywhere,
// and still sort by its time.
func TryName(epoch string, attempt int) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '.':
			return r
		}
		return -1
	}, epoch) + "-" + strconv.Itoa(attempt)
}

// triedKey is the object key of what one try leaves, which no other try
// replaces.
func triedKey(uid, epoch string, attempt int, name string) string {
	return triesPrefix(uid) + TryName(epoch, attempt) + "/" + name
}

// PutEvents stores the events of a stack: as the latest, and as those of their
// try.
func (r *Recorder) PutEvents(ctx context.Context, e Events) error {
	e.SchemaVersion = SchemaVersion
	var err error
	if e.Epoch != "" {
		err = r.put(ctx, triedKey(e.WorkflowID, e.Epoch, e.Attempt, "events/"+e.Environment+"/"+e.Stack+".json"), e)
	}
	return errors.Join(err, r.put(ctx, EventsKey(e.WorkflowID, e.Environment, e.Stack), e))
}

// Events returns the latest that is recorded of stack, in every environment
// that has one of that name, or of all stacks if stack is empty.
func (r *Recorder) Events(ctx context.Context, uid, stack string) ([]Events, error) {
	return r.eventsBelow(ctx, eventsPrefix(uid), stack)
}

// TriedEvents is Events for every try, the first one first.
func (r *Recorder) TriedEvents(ctx context.Context, uid, stack string) ([]Events, error) {
	all, err := r.eventsBelow(ctx, triesPrefix(uid), stack)
	slices.SortStableFunc(all, func(a, b Events) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Attempt, b.Attempt))
	})
	return all, err
}

func (r *Recorder) eventsBelow(ctx context.Context, prefix, stack string) ([]Events, error) {
	listed, err := r.store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list the events: %w", err)
	}
	var all []Events
	for _, object := range listed {
		if !strings.Contains(object.Key, "/events/") || stack != "" && !strings.HasSuffix(object.Key, "/"+stack+".json") {
			continue
		}
		var e Events
		if err := r.get(ctx, object.Key, &e); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}
