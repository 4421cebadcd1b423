package parity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Cell is one app in one prior state.
type Cell struct {
	App   string
	State State
}

// Config says what is compared and how.
type Config struct {
	// Cells are the cells of the matrix. Required.
	Cells []Cell
	// Live runs the command line even where its result is recorded.
	Live bool
	// Parallel is how many apps are deployed at a time; 0 means 2.
	Parallel int
	// Record is the package's folder if what the command line does is to be
	// kept; empty otherwise.
	Record string
	// Log receives progress and, for a cell that differs, everything. Required.
	Log io.Writer
}

// Result is the verdict on one cell.
type Result struct {
	Cell
	Differences []Difference
	// Recorded says that the command line's side was a recording.
	Recorded bool
	// CDKCalls and AphexCalls count the AWS calls of the deployment that
	// counts; CDKCalls is 0 if recorded.
	CDKCalls, AphexCalls int
	// CDKTime and AphexTime are how long it took.
	CDKTime, AphexTime time.Duration
	// Log is what aphex said if its deployment ended badly.
	Log string
	// Err is set if the cell could not be compared.
	Err error
}

// Unexpected returns the differences that nobody allowed.
func (r Result) Unexpected() []Difference {
	return slices.DeleteFunc(slices.Clone(r.Differences), func(d Difference) bool { return d.Allowed != "" })
}

// Report is the outcome of a run.
type Report struct {
	Results []Result

	mu     sync.Mutex
	oracle map[string]map[State]Snapshot
}

const (
	// removeLimit bounds the removal of a run's folder; removePoll is the pause
	// between two tries.
	removeLimit = 10 * time.Second
	removePoll  = 100 * time.Millisecond
)

// deployer is one of the two tools.
type deployer interface {
	name() string
	synth(ctx context.Context, app string, variant Variant) (string, error)
	deploy(ctx context.Context, app string, variant Variant, endpoint string) error
}

// bench is one tool with the emulator it deploys to.
type bench struct {
	deployer
	emulator *aws.Emulator
	// oracle marks the tool that the other one is measured by.
	oracle bool
}

// Run compares the cells. It takes seconds per cell, and some more where the
// command line has to run.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	if config.Parallel == 0 {
		config.Parallel = 2
	}
	dir, err := os.MkdirTemp("", "aphex-parity-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	with, err := install(ctx, config.Cells, config.Log)
	if err != nil {
		return nil, err
	}
	ours, stop, err := newEngine(ctx, filepath.Join(dir, "aphex"), with)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := &run{config: config, report: &Report{oracle: map[string]map[State]Snapshot{}}, ours: ours}
	if r.allowed, err = AllowList(); err != nil {
		return nil, err
	}
	if r.live, err = needLive(config); err != nil {
		return nil, err
	}
	if len(r.live) > 0 {
		if r.cdk, stop, err = newCommandLine(ctx, filepath.Join(dir, "cdk"), with, config.Log); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	for _, chain := range chains() {
		if err := r.chain(ctx, chain); err != nil {
			return nil, err
		}
	}
	return r.report, nil
}

// removeAll removes a folder that a program may still be writing to: the
// library's process beside a Python app outlives it by a moment.
func removeAll(dir string) error {
	for began := time.Now(); ; time.Sleep(removePoll) {
		if err := os.RemoveAll(dir); err == nil || time.Since(began) > removeLimit {
			return err
		}
	}
}

// needLive returns the cells whose other side is not recorded.
func needLive(config Config) (map[Cell]bool, error) {
	live := map[Cell]bool{}
	for _, cell := range config.Cells {
		_, ok, err := recorded(cell.App, cell.State)
		if err != nil {
			return nil, err
		}
		if !ok || config.Live {
			live[cell] = true
		}
	}
	return live, nil
}

func newEngine(ctx context.Context, dir string, with installed) (bench, func() error, error) {
	e := &engine{root: filepath.Join(dir, "root"), private: filepath.Join(dir, "private"), kept: newAssemblies(filepath.Join(dir, "assemblies"))}
	for _, d := range []string{e.root, e.private} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return bench{}, nil, err
		}
	}
	if err := checkout(filepath.Join(e.root, worker.SourceDir), with); err != nil {
		return bench{}, nil, err
	}
	emulator, err := aws.Start(ctx, aws.Config{})
	if err != nil {
		return bench{}, nil, err
	}
	e.emulator = emulator
	socket := filepath.Join(dir, "worker.sock")
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(serving, worker.ServerConfig{Socket: socket, Root: e.root, Environ: []string{"PATH=" + os.Getenv("PATH")}})
	}()
	e.client = worker.NewClient(socket)
	return bench{deployer: e, emulator: emulator}, func() error { cancel(); return errors.Join(<-served, emulator.Stop()) }, nil
}

func newCommandLine(ctx context.Context, dir string, with installed, log io.Writer) (bench, func() error, error) {
	c := &commandLine{dir: filepath.Join(dir, "source"), program: filepath.Join(with.modules, "node_modules", ".bin", "cdk"), kept: newAssemblies(filepath.Join(dir, "assemblies"))}
	if err := checkout(c.dir, with); err != nil {
		return bench{}, nil, err
	}
	emulator, err := aws.Start(ctx, aws.Config{Log: log})
	if err != nil {
		return bench{}, nil, err
	}
	c.emulator = emulator
	return bench{deployer: c, emulator: emulator, oracle: true}, emulator.Stop, nil
}

// run is one call of Run.
type run struct {
	config    Config
	report    *Report
	allowed   []Allowed
	live      map[Cell]bool
	ours, cdk bench
}

// chain compares all cells of one chain, beginning with empty accounts.
func (r *run) chain(ctx context.Context, chain []move) error {
	apps := map[string][]move{}
	for _, cell := range r.config.Cells {
		for i, m := range chain {
			if m.state == cell.State && len(apps[cell.App]) <= i {
				apps[cell.App] = chain[:i+1]
			}
		}
	}
	if len(apps) == 0 {
		return nil
	}
	for _, b := range []bench{r.ours, r.cdk} {
		if b.emulator == nil {
			continue
		}
		if err := errors.Join(b.emulator.Reset(ctx), b.emulator.QuickBootstrap(ctx, account, region, nil)); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.config.Parallel)
	for _, app := range slices.Sorted(maps.Keys(apps)) {
		group.Go(func() error {
			r.app(ctx, app, apps[app])
			return ctx.Err()
		})
	}
	return group.Wait()
}

// app compares one app in the states of a chain.
func (r *run) app(ctx context.Context, app string, chain []move) {
	live := false
	for _, m := range chain {
		live = live || r.live[Cell{app, m.state}]
	}
	var cdk []outcome
	if live {
		cdk = r.cdk.follow(ctx, app, chain)
	}
	for i, ours := range r.ours.follow(ctx, app, chain) {
		cell := Cell{app, chain[i].state}
		if !slices.Contains(r.config.Cells, cell) {
			continue
		}
		result := Result{Cell: cell, Recorded: !live, AphexCalls: ours.calls, AphexTime: ours.took, Err: ours.err}
		var want Snapshot
		if live {
			want, result.CDKCalls, result.CDKTime = cdk[i].snapshot, cdk[i].calls, cdk[i].took
			result.Err = errors.Join(result.Err, cdk[i].err)
		} else {
			var err error
			want, _, err = recorded(app, cell.State)
			result.Err = errors.Join(result.Err, err)
		}
		if result.Err == nil {
			result.Differences = differences(app, cell.State, want, ours.snapshot, r.allowed)
			result.Log = ours.log
			if live {
				r.report.keep(cell, want)
			}
		}
		r.report.add(result)
		result.write(r.config.Log)
	}
	if live && r.config.Record != "" {
		if err := r.report.record(r.config.Record, app); err != nil {
			_, _ = fmt.Fprintf(r.config.Log, "%s is not recorded: %v\n", app, err)
		}
	}
}

func (r *Report) add(result Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Results = append(r.Results, result)
}

func (r *Report) keep(cell Cell, s Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.oracle[cell.App] == nil {
		r.oracle[cell.App] = map[State]Snapshot{}
	}
	r.oracle[cell.App][cell.State] = s
}

// outcome is what one tool left in one state.
type outcome struct {
	snapshot Snapshot
	calls    int
	took     time.Duration
	// log is what a deployment that ended badly said.
	log string
	err error
}

// follow deploys an app along a chain and looks after each move. After a move
// that cannot be judged the rest has the same error.
func (b bench) follow(ctx context.Context, app string, chain []move) []outcome {
	out := make([]outcome, len(chain))
	var all []request
	for i, m := range chain {
		out[i] = b.move(ctx, app, m, &all)
		if out[i].err == nil {
			continue
		}
		out[i].err = fmt.Errorf("%s: %w", b.name(), out[i].err)
		for j := i + 1; j < len(chain); j++ {
			out[j].err = out[i].err
		}
		break
	}
	return out
}

// move carries out one move. all is everything that was sent on the way here.
func (b bench) move(ctx context.Context, app string, m move, all *[]request) (o outcome) {
	settings, err := appSettings(app)
	if err != nil {
		return outcome{err: err}
	}
	cfg := b.emulator.DirectConfig(account, region)
	stacks, err := b.stacks(ctx, app)
	if err != nil {
		return outcome{err: err}
	}
	if err := m.state.arrange(ctx, cfg, stacks); err != nil {
		return outcome{err: err}
	}
	began := time.Now()
	calls, err := b.deployThrough(ctx, app, m.variant)
	o.took, o.calls = time.Since(began), len(calls)
	*all = append(*all, calls...)
	refused := (*refusedError)(nil)
	failed := errors.As(err, &refused)
	if err != nil && !failed {
		return outcome{err: err}
	}
	expected := m.fails || slices.Contains(settings.Fails, m.state)
	if failed != expected && (b.oracle || m.state == "") {
		return outcome{err: fmt.Errorf("deploy %s in state %q: should fail: %t, but: %w", m.variant, m.state, expected, err)}
	}
	if o.snapshot, o.err = snapshot(ctx, cfg, app, *all, calls); o.err != nil {
		return o
	}
	o.snapshot["ended"] = "well"
	if failed {
		o.snapshot["ended"], o.log = "badly", refused.text
	}
	return o
}

// stacks returns the names of the stacks that the app defines first.
func (b bench) stacks(ctx context.Context, app string) ([]string, error) {
	dir, err := b.synth(ctx, app, One)
	if err != nil {
		return nil, nil //nolint:nilerr // an app that cannot be synthesized has none, and its deployment says why
	}
	built, err := assembly.Load(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range built.Stacks {
		names = append(names, s.Name)
	}
	return names, nil
}

func (b bench) deployThrough(ctx context.Context, app string, variant Variant) ([]request, error) {
	t, err := newTap(b.emulator.DirectEndpoint())
	if err != nil {
		return nil, err
	}
	defer t.close()
	err = b.deploy(ctx, app, variant, t.server.URL)
	return t.seen(), err
}
