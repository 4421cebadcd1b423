package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// Limits of one run.
const (
	// runLimit is how long a run, or its retry, may take. One without a kill
	// takes about ten seconds on an idle machine; a container that died twice
	// waits for up to 20 s, and a journal write for two minutes.
	runLimit = 6 * time.Minute
	// goneLimit is how long the last pod and its processes may be seen after
	// the run's end.
	goneLimit = 90 * time.Second
	gonePoll  = 250 * time.Millisecond
)

// Verdict says what came of a run.
type Verdict string

// The verdicts. Missed is a run whose kill never happened: its boundary was
// not reached.
const (
	OK      Verdict = "ok"
	Lost    Verdict = "lost"
	Doubled Verdict = "doubled"
	Stuck   Verdict = "stuck"
	Missed  Verdict = "missed"
)

// Case is one run to make.
type Case struct {
	// Name is unique among all cases and stable.
	Name string
	// Group is the row of the histogram.
	Group   string
	Strikes []Strike
	// Lose is the effect whose answer is swallowed; zero for none.
	Lose Point
}

// Result is what came of a case.
type Result struct {
	Case    string  `json:"case"`
	Group   string  `json:"group"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why,omitempty"`
	// Fired are the kills that happened.
	Fired   []string `json:"fired,omitempty"`
	Retried bool     `json:"retried"`
	// First is how the run ended before it was retried.
	First   string  `json:"first,omitempty"`
	Seconds float64 `json:"seconds"`
	// Workflow names the run in logs.
	Workflow string `json:"workflow"`
}

// Harness makes runs in one lab.
type Harness struct {
	lab     *lab.Lab
	app     string
	log     io.Writer
	cert    string
	key     string
	prefix  string
	numbers sync.Mutex
	number  int
	// base is what a run without a kill leaves; set by Record.
	base *ledger
}

// New prepares a harness. root is the checkout, dir a folder for its files;
// prefix begins the names of all its pipelines.
func New(ctx context.Context, l *lab.Lab, root, dir, prefix string, log io.Writer) (*Harness, error) {
	h := &Harness{lab: l, log: log, prefix: prefix}
	var err error
	if h.cert, h.key, err = l.Cluster.ServerCertificate(); err != nil {
		return nil, err
	}
	h.app, err = prepareApp(ctx, l, root, dir)
	return h, err
}

// Record makes a run without a kill. It returns its effects in order, also of
// one that went wrong; all later runs are compared with what it left.
func (h *Harness) Record(ctx context.Context) ([]Seen, error) {
	t, result, left, err := h.make(ctx, Case{Name: "record"})
	if err != nil {
		return nil, err
	}
	if result.Verdict != OK || result.Retried {
		return t.seen, fmt.Errorf("the run without a kill is %s (retried: %t): %s", result.Verdict, result.Retried, result.Why)
	}
	h.base = left
	return t.seen, nil
}

// Run makes one case. An error is one of the harness; what the product did is
// in the result.
func (h *Harness) Run(ctx context.Context, c Case) (Result, error) {
	if h.base == nil {
		return Result{}, errors.New("no run was recorded yet")
	}
	_, result, _, err := h.make(ctx, c)
	return result, err
}

// stage is the surroundings of one run.
type stage struct {
	h        *Harness
	tap      *tap
	names    *names
	pipeline *lab.Pipeline
	run      *lab.Run
	servers  []*server

	mu   sync.Mutex
	pods map[string]bool
}

func (h *Harness) make(ctx context.Context, c Case) (*tap, Result, *ledger, error) {
	began := time.Now()
	result := Result{Case: c.Name, Group: c.Group}
	s, err := h.prepare(ctx, c)
	if err != nil {
		return nil, result, nil, err
	}
	defer func() {
		s.tap.close()
		for _, server := range s.servers {
			_ = server.close() // nobody is left who could be disturbed
		}
	}()
	if err := s.submit(ctx); err != nil {
		return nil, result, nil, err
	}
	result.Workflow = s.run.Name
	left, err := s.finish(ctx, &result)
	result.Seconds = time.Since(began).Seconds()
	s.tap.mu.Lock()
	result.Fired = s.tap.fired
	killErr := errors.Join(s.tap.errs...)
	s.tap.mu.Unlock()
	if err == nil && (result.Verdict == OK || result.Verdict == Missed) {
		err = s.clean(ctx) // what went wrong stays for whoever looks into it
	}
	return s.tap, result, left, errors.Join(err, killErr)
}

// prepare makes the pipeline of a case and the places its effects pass.
func (h *Harness) prepare(ctx context.Context, c Case) (*stage, error) {
	h.numbers.Lock()
	h.number++
	name := fmt.Sprintf("%s-%d", h.prefix, h.number)
	h.numbers.Unlock()
	s := &stage{h: h, names: &names{pipeline: name}, pods: map[string]bool{}}
	s.tap = newTap(func(v Victim) error {
		uid, err := kill(ctx, h.lab, s.run, v)
		s.saw(uid)
		return err
	}, c.Strikes, c.Lose)
	cloud, err := newAWSPassage(s.tap, h.lab.AWS.DirectEndpoint(), s.names)
	if err != nil {
		return nil, err
	}
	cluster, err := newKubePassage(s.tap, h.lab.Cluster.Kubeconfig(), s.names, s.saw)
	if err != nil {
		return nil, err
	}
	aws, err := serve(ctx, cloud, "", "")
	if err != nil {
		return nil, err
	}
	kube, err := serve(ctx, cluster, h.cert, h.key)
	if err != nil {
		return nil, errors.Join(err, aws.close())
	}
	calls, err := serve(ctx, marks(s.tap), "", "")
	if err != nil {
		return nil, errors.Join(err, aws.close(), kube.close())
	}
	s.servers = []*server{aws, kube, calls}
	host := h.lab.Cluster.HostAddress()
	at := func(p *server) string { return "http://" + net.JoinHostPort(host, strconv.Itoa(p.port)) }
	s.pipeline, err = h.lab.NewPipeline(ctx, name, installation(at(aws), at(calls)))
	if err != nil {
		return nil, err
	}
	template, err := s.pipeline.Template(configuration(name))
	if err != nil {
		return nil, err
	}
	if template, err = patched(template, host, kube.port); err != nil {
		return nil, err
	}
	_, err = h.lab.Kubectl(ctx, template, "apply", "-f", "-")
	return s, err
}

// submit pushes the commit and starts the run.
func (s *stage) submit(ctx context.Context) error {
	name := s.names.pipeline
	commit, err := s.pipeline.Push(ctx, gitserver.Change{Dir: s.h.app, Message: "sample"})
	if err == nil {
		commit, err = s.pipeline.Push(ctx, gitserver.Change{Message: "names", Write: map[string]string{
			"name.txt": name + "\n", "page.html": "<h1>" + name + "</h1>\n", "aphex-config.yaml": string(configuration(name)),
		}})
	}
	if err != nil {
		return err
	}
	s.run, err = s.pipeline.Submit(ctx, commit)
	return err
}

// saw remembers a pod of the run.
func (s *stage) saw(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uid != "" {
		s.pods[uid] = true
	}
}

// finish brings the run to its end, with one retry if it needs one, and judges
// it.
func (s *stage) finish(ctx context.Context, result *Result) (*ledger, error) {
	status, err := s.wait(ctx)
	if err != nil {
		return nil, err
	}
	if status.Done() && status.Phase != "Succeeded" {
		result.Retried, result.First = true, describe(status)
		refused := s.run.Retry(ctx)
		if refused != nil {
			result.Verdict, result.Why = Lost, "it cannot be retried: "+refused.Error()
			return nil, ctx.Err()
		}
		if status, err = s.wait(ctx); err != nil {
			return nil, err
		}
	}
	s.tap.close()
	switch {
	case !status.Done():
		text, _ := json.Marshal(status) //nolint:errchkjson // plain strings
		result.Verdict, result.Why = Stuck, fmt.Sprintf("not at its end after %s: %s", runLimit, text)
		return nil, nil //nolint:nilnil // the verdict says it all
	case status.Phase != "Succeeded":
		result.Verdict, result.Why = Lost, "its retry ended "+describe(status)
		return nil, nil //nolint:nilnil // the verdict says it all
	}
	left, err := s.ledger(ctx, status.UID)
	if err != nil {
		return nil, err
	}
	gone, err := s.gone(ctx)
	if err != nil {
		return nil, err
	}
	s.judge(result, left, gone)
	return left, nil
}

// judge compares what is left with the run without a kill.
func (s *stage) judge(result *Result, left *ledger, gone string) {
	s.tap.mu.Lock()
	unfired := len(s.tap.strikes) > 0 || s.tap.lose != Point{}
	violations := strings.Join(s.tap.violations, "; ")
	s.tap.mu.Unlock()
	result.Verdict = OK
	if s.h.base != nil {
		result.Verdict, result.Why = left.compare(s.h.base, result.Retried)
	}
	switch {
	case result.Verdict != OK:
	case violations != "":
		result.Verdict, result.Why = Doubled, violations
	case gone != "":
		result.Verdict, result.Why = Stuck, gone
	case unfired:
		result.Verdict, result.Why = Missed, "its boundary was not reached"
	}
}

// wait waits for the run's end; a run that does not end is no error.
func (s *stage) wait(ctx context.Context) (lab.Status, error) {
	limited, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	status, err := s.run.Wait(limited)
	if ctx.Err() != nil {
		return status, context.Cause(ctx)
	}
	if limited.Err() != nil {
		return status, nil
	}
	return status, err
}

// describe is a run's end in one line.
func describe(s lab.Status) string {
	parts := []string{s.Phase + ": " + s.Message}
	for _, n := range s.Nodes {
		if n.Phase != "Succeeded" && n.Phase != "Omitted" {
			parts = append(parts, fmt.Sprintf("%s %s: %s", n.Display, n.Phase, n.Message))
		}
	}
	return strings.Join(parts, "; ")
}
