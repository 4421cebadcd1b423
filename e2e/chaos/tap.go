package chaos

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The places where effects are seen.
const (
	KindAWS     = "aws"
	KindKube    = "kube"
	KindCommand = "command"
)

// Point is one effect, named so that it has the same name in every run: the
// Nth of those with equal kind, verb and object.
type Point struct {
	Kind, Verb, Object string
	// Nth counts from 1.
	Nth int
}

// String is "kind:verb:object#nth".
func (p Point) String() string { return fmt.Sprintf("%s:%s:%s#%d", p.Kind, p.Verb, p.Object, p.Nth) }

// Moment is a side of an effect.
type Moment string

// The moments: before the effect is forwarded, and after it took effect but
// before its answer is given. A command's begin and end have Before alone.
const (
	Before Moment = "before"
	After  Moment = "after"
)

// Boundary is a moment at which something can be killed.
type Boundary struct {
	Point
	Moment Moment
}

// String is "moment kind:verb:object#nth"; ParseBoundary reads it.
func (b Boundary) String() string { return string(b.Moment) + " " + b.Point.String() }

var boundaryForm = regexp.MustCompile(`^(before|after) (aws|kube|command):([^:]+):(.*)#(\d+)$`)

// ParseBoundary is the inverse of Boundary.String.
func ParseBoundary(text string) (Boundary, error) {
	m := boundaryForm.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return Boundary{}, fmt.Errorf("boundary %q: want \"before|after kind:verb:object#n\"", text)
	}
	nth, err := strconv.Atoi(m[5])
	if err != nil {
		return Boundary{}, fmt.Errorf("boundary %q: %w", text, err)
	}
	return Boundary{Point: Point{Kind: m[2], Verb: m[3], Object: m[4], Nth: nth}, Moment: Moment(m[1])}, nil
}

// Strike is one kill.
type Strike struct {
	// At is what it waits for; the zero Boundary is the strike before it.
	At Boundary
	// Delay is waited after that. Without a delay whatever comes next at the
	// boundary waits until the victim is dead.
	Delay  time.Duration
	Victim Victim
}

// Seen is one effect of a run.
type Seen struct {
	Point
	At time.Time
	// Status is the HTTP status of the answer; 0 if there was none.
	Status int
}

// tap is where the three places of one run meet.
type tap struct {
	// kill kills, and returns once the victim is dead.
	kill func(Victim) error
	// lose is the point whose answer is swallowed, if not zero.
	lose Point

	mu         sync.Mutex
	counts     map[string]int
	seen       []Seen
	strikes    []Strike
	fired      []string
	errs       []error
	executed   map[string]int
	finals     map[string]bool
	violations []string
	pending    sync.WaitGroup
	closed     bool
}

func newTap(kill func(Victim) error, strikes []Strike, lose Point) *tap {
	return &tap{
		kill: kill, strikes: strikes, lose: lose,
		counts: map[string]int{}, executed: map[string]int{}, finals: map[string]bool{},
	}
}

// begin names the next effect.
func (t *tap) begin(kind, verb, object string) (Point, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := kind + ":" + verb + ":" + object
	t.counts[key]++
	t.seen = append(t.seen, Seen{Point: Point{Kind: kind, Verb: verb, Object: object, Nth: t.counts[key]}, At: time.Now()})
	return t.seen[len(t.seen)-1].Point, len(t.seen) - 1
}

// answered notes the status of an effect's answer.
func (t *tap) answered(index, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[index].Status = status
}

// reach is called at a boundary. It strikes if that is due, and reports
// whether the one who waits for the effect is dead: there is nobody to go on
// for.
func (t *tap) reach(p Point, m Moment) (cut bool) {
	t.mu.Lock()
	if t.closed || len(t.strikes) == 0 || (t.strikes[0].At != Boundary{Point: p, Moment: m}) {
		t.mu.Unlock()
		return false
	}
	strike := t.strikes[0]
	t.strikes = t.strikes[1:]
	t.mu.Unlock()
	if strike.Delay > 0 {
		t.later(strike, strike.Delay)
		return false
	}
	t.strike(strike)
	return strike.Victim.serves()
}

// later strikes after a while. A run that has ended by then is not struck.
func (t *tap) later(strike Strike, after time.Duration) {
	t.pending.Add(1)
	time.AfterFunc(after, func() {
		defer t.pending.Done()
		t.mu.Lock()
		closed := t.closed
		if closed {
			t.strikes = append(t.strikes, strike)
		}
		t.mu.Unlock()
		if !closed {
			t.strike(strike)
		}
	})
}

// strike kills. Between two pods there may be nobody to kill: a strike that
// comes at some time then waits for the next one.
func (t *tap) strike(strike Strike) {
	err := t.kill(strike.Victim)
	if errors.Is(err, errNobody) && strike.Delay > 0 {
		t.later(strike, nobodyPoll)
		return
	}
	t.mu.Lock()
	what := strike.At.String()
	if strike.At == (Boundary{}) {
		what = "the kill before"
	}
	if strike.Delay > 0 {
		what = fmt.Sprintf("%s after %s", strike.Delay.Round(time.Millisecond), what)
	}
	if err != nil {
		t.errs = append(t.errs, fmt.Errorf("kill %s at %s: %w", strike.Victim, what, err))
	} else {
		t.fired = append(t.fired, fmt.Sprintf("%s killed, %s", strike.Victim, what))
	}
	var next *Strike
	if len(t.strikes) > 0 && t.strikes[0].At == (Boundary{}) {
		next = &t.strikes[0]
		t.strikes = t.strikes[1:]
	}
	t.mu.Unlock()
	if next != nil {
		t.later(*next, next.Delay)
	}
}

// loses reports, once, whether the answer of p has to be swallowed.
func (t *tap) loses(p Point) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lose != p || t.closed {
		return false
	}
	t.lose = Point{}
	t.fired = append(t.fired, "answer lost, "+p.String())
	return true
}

// ended notes the final reply of a stage, or that it has begun again.
func (t *tap) ended(stage string, final bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finals[stage] = final
}

// command notes that a command of a stage begins or ends.
func (t *tap) command(stage, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finals[stage] {
		t.violations = append(t.violations, fmt.Sprintf("%s of %s after the final reply of its stage", what, stage))
	}
}

// close ends all strikes and waits for the ones under way.
func (t *tap) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.pending.Wait()
}
