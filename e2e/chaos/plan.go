package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Phase is a part of a run, from one effect to another.
type Phase struct {
	Name string
	// Start and Duration are of the recorded run.
	Start    Boundary
	Duration time.Duration
}

// Enumerate returns one case per boundary of a recorded run: the sidecar
// killed at each, and the worker too where a command begins or ends.
func Enumerate(seen []Seen) []Case {
	var cases []Case
	add := func(b Boundary, v Victim) {
		group := b.Kind + " " + string(b.Moment)
		if b.Kind == KindCommand {
			group = b.Kind + " " + b.Verb
		}
		if v != Sidecar {
			group += " (" + string(v) + ")"
		}
		cases = append(cases, Case{Name: string(v) + " " + b.String(), Group: group, Strikes: []Strike{{At: b, Victim: v}}})
	}
	for _, s := range seen {
		add(Boundary{Point: s.Point, Moment: Before}, Sidecar)
		if s.Kind == KindCommand {
			add(Boundary{Point: s.Point, Moment: Before}, Worker)
			continue
		}
		add(Boundary{Point: s.Point, Moment: After}, Sidecar)
	}
	return cases
}

// LostAnswers returns one case per mutating AWS call of a recorded run, whose
// answer is lost after it took effect.
func LostAnswers(seen []Seen) []Case {
	var cases []Case
	for _, s := range seen {
		if s.Kind == KindAWS {
			cases = append(cases, Case{Name: "lost answer " + s.String(), Group: "answer lost", Lose: s.Point})
		}
	}
	return cases
}

// phaseStarts names the first effect of each phase, by a part of its point.
func phaseStarts() []struct{ name, kind, verb, part string } {
	return []struct{ name, kind, verb, part string }{
		{"clone", KindKube, "", "validate begin"},
		{"build", KindCommand, "begin", "compile"},
		{"snapshot", KindCommand, "end", "pack"},
		{"synth", KindCommand, "begin", "synth"},
		{"assets", KindKube, "", "dev=deploying"},
		{"change-set creation", KindKube, "", "stack create-change-set"},
		{"execution", KindKube, "", "stack execute-change-set"},
		{"monitoring", KindAWS, "ExecuteChangeSet", ""},
		{"test", KindCommand, "begin", "smoke"},
		{"finish", KindKube, "", "finish begin"},
	}
}

// Phases finds the phases in a recorded run.
//
// Error: a phase whose start is not in it.
func Phases(seen []Seen) ([]Phase, error) {
	var phases []Phase
	for _, start := range phaseStarts() {
		i := slices.IndexFunc(seen, func(s Seen) bool {
			return s.Kind == start.kind && (start.verb == "" || s.Verb == start.verb) && strings.Contains(s.Object, start.part)
		})
		if i < 0 {
			return nil, fmt.Errorf("phase %s: no effect %s %s %q was recorded", start.name, start.kind, start.verb, start.part)
		}
		moment := After
		if seen[i].Kind == KindCommand {
			moment = Before
		}
		// Up to the next journal write, at least a moment.
		duration := 300 * time.Millisecond
		for _, next := range seen[i+1:] {
			if next.Kind == KindKube && strings.HasPrefix(next.Object, "journal ") {
				duration = max(duration, next.At.Sub(seen[i].At))
				break
			}
		}
		phases = append(phases, Phase{Name: start.name, Start: Boundary{Point: seen[i].Point, Moment: moment}, Duration: duration})
	}
	return phases, nil
}

// Random returns n cases, each killed at a random time of a phase; every phase
// has as many as another, within one. Victims are drawn, the sidecar most
// often.
func Random(phases []Phase, n int, seed uint64) []Case {
	random := rand.New(rand.NewPCG(seed, 1))
	cases := make([]Case, 0, n)
	for i := range n {
		strike, phase := draw(random, phases[i%len(phases)])
		cases = append(cases, Case{
			Name: fmt.Sprintf("random %d/%d: %s in %s", seed, i, strike.Victim, phase.Name), Group: "random, " + phase.Name,
			Strikes: []Strike{strike},
		})
	}
	return cases
}

// secondWithin is how long after the first kill the second one comes.
const secondWithin = 8 * time.Second

// Doubles returns n cases with two kills each: the second one hits what comes
// up after the first.
func Doubles(phases []Phase, n int, seed uint64) []Case {
	random := rand.New(rand.NewPCG(seed, 2))
	cases := make([]Case, 0, n)
	for i := range n {
		first, phase := draw(random, phases[random.IntN(len(phases)-1)]) // after finish there is nothing to kill
		second := Strike{Delay: time.Duration(random.Int64N(int64(secondWithin))) + time.Millisecond, Victim: victim(random)}
		cases = append(cases, Case{
			Name:  fmt.Sprintf("double %d/%d: %s in %s, then %s", seed, i, first.Victim, phase.Name, second.Victim),
			Group: "double", Strikes: []Strike{first, second},
		})
	}
	return cases
}

func draw(random *rand.Rand, phase Phase) (Strike, Phase) {
	delay := time.Duration(random.Int64N(int64(phase.Duration))) + time.Millisecond
	return Strike{At: phase.Start, Delay: delay, Victim: victim(random)}, phase
}

// victim is the sidecar in half of all cases.
func victim(random *rand.Rand) Victim {
	others := Victims()[1:]
	if i := random.IntN(2 * len(others)); i < len(others) {
		return others[i]
	}
	return Sidecar
}

// Sample returns the six cases that CI makes: one of each kind of boundary
// where an effect could be lost or doubled.
func Sample(seen []Seen) ([]Case, error) {
	var cases []Case
	for _, want := range []struct {
		kind, verb, part string
		moment           Moment
		victim           Victim
	}{
		{KindCommand, "begin", "pack", Before, Sidecar},
		{KindAWS, "PutObject", "snapshot", After, Sidecar},
		{KindCommand, "begin", "synth", Before, PodForced},
		{KindAWS, "CreateChangeSet", "", After, PodForced},
		{KindAWS, "ExecuteChangeSet", "", After, Sidecar},
		{KindKube, "", "test-dev end", After, Agent},
	} {
		i := slices.IndexFunc(seen, func(s Seen) bool {
			return s.Kind == want.kind && (want.verb == "" || s.Verb == want.verb) && strings.Contains(s.Object, want.part)
		})
		if i < 0 {
			return nil, fmt.Errorf("no effect %s %s %q was recorded", want.kind, want.verb, want.part)
		}
		b := Boundary{Point: seen[i].Point, Moment: want.moment}
		cases = append(cases, Case{
			Name: string(want.victim) + " " + b.String(), Group: "sample", Strikes: []Strike{{At: b, Victim: want.victim}},
		})
	}
	return cases, nil
}

// Spread reorders cases so that every beginning of the list is spread over all
// of it: a campaign that is cut short has seen a bit of everything.
func Spread(cases []Case) []Case {
	const golden = 0.618
	n := len(cases)
	step := max(int(golden*float64(n)), 1)
	for divisor(step, n) > 1 {
		step++
	}
	out := make([]Case, 0, n)
	for i := range n {
		out = append(out, cases[i*step%n])
	}
	return out
}

func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
