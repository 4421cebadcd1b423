package execution_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// agentLimit is after how long Argo's agent gives a call up.
	agentLimit = 30 * time.Second
	// commandEnd is what a command takes to end when it is told to.
	commandEnd = 2 * time.Second
)

// world is what outlives the plugin's processes: the run, its journal, the
// outside that stages act upon, and what the agent was told.
type world struct {
	dir  string
	maps *configMaps
	// steps lets a command take one step per token.
	steps chan struct{}
	// calls ends when the agent hangs up.
	calls  context.Context
	hang   context.CancelFunc
	now    *process
	old    []*process
	pod    int
	worker *fakeWorker
	done   sync.WaitGroup // the agent's calls

	mu      sync.Mutex
	epoch   int
	state   execution.RunState
	changed chan struct{}
	acts    map[string]int // effects on the outside, by key and name
	bad     []string
	finals  map[string]string // what the agent got, by key
	// rejecting: the plugin found no rights when it met the run.
	rejecting bool
}

func newWorld(dir string) *world {
	w := &world{dir: dir, maps: newConfigMaps(), steps: make(chan struct{}), changed: make(chan struct{}), acts: map[string]int{}, finals: map[string]string{}, worker: newFakeWorker()}
	w.state.Epoch = epochName(0)
	w.calls, w.hang = context.WithCancel(context.Background())
	return w
}

func epochName(n int) string {
	return time.Date(2026, 11, 24, 6, n, 0, 0, time.UTC).Format(time.RFC3339)
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, fmt.Sprintf(format, args...))
}

func (w *world) complaints() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.bad...)
}

// The run, as the API server knows it.

func (w *world) State(ctx context.Context, _ task.Run) (execution.RunState, error) {
	if err := w.maps.ask(ctx); err != nil {
		return execution.RunState{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, nil
}

func (w *world) Watch(ctx context.Context, _ task.Run, fn func(execution.RunState)) error {
	for {
		w.mu.Lock()
		state, changed := w.state, w.changed
		w.mu.Unlock()
		fn(state)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *world) Wanted(context.Context, task.Run, string) (bool, error) { return true, nil }

func (w *world) set(change func(*execution.RunState)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.state)
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) shutDown(how string) {
	w.set(func(s *execution.RunState) { s.Shutdown = how })
}

// retry is `argo retry`: the run has ended, its pod with it, and starts anew.
func (w *world) retry() {
	w.set(func(s *execution.RunState) { s.Finished = true })
	w.drain()
	w.crash()
	w.hangUp()
	w.mu.Lock()
	w.epoch++
	next := epochName(w.epoch)
	w.mu.Unlock()
	w.set(func(s *execution.RunState) { *s = execution.RunState{Epoch: next} })
	w.pod++
	w.worker = newFakeWorker()
	w.boot()
}

// process is one life of the plugin.
type process struct {
	engine *execution.Engine
	kill   context.CancelFunc
	done   chan struct{}
}

func (w *world) boot() {
	w.rejects(false)
	engine, err := w.newEngine()
	if err != nil {
		panic(err)
	}
	ctx, kill := context.WithCancel(context.Background())
	p := &process{engine: engine, kill: kill, done: make(chan struct{})}
	go func() { engine.Run(ctx); close(p.done) }()
	w.now = p
}

// crash ends the process without a word: what is not in the journal is lost.
func (w *world) crash() {
	w.now.kill()
	<-w.now.done
}

func (w *world) newPod() {
	w.crash()
	w.hangUp()
	w.worker.restart()
	w.pod++
	w.worker = newFakeWorker()
	w.boot()
}

// leaveBehind is a pod that Kubernetes has given up and that still works.
func (w *world) leaveBehind() {
	w.old = append(w.old, w.now)
	w.hangUp()
	w.pod++
	w.worker = newFakeWorker()
	w.boot()
}

func (w *world) restartWorker() { w.worker.restart() }

// drain is SIGTERM.
func (w *world) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	w.now.engine.Drain(ctx)
}

func (w *world) end() {
	w.hang()
	w.crash()
	for _, p := range w.old {
		p.kill()
		<-p.done
	}
	w.done.Wait()
}

// hangUp is a new agent: what it had asked is forgotten.
func (w *world) hangUp() {
	w.hang()
	w.calls, w.hang = context.WithCancel(context.Background())
}

// step lets one command go on, if one waits.
func (w *world) step() {
	synctest.Wait()
	select {
	case w.steps <- struct{}{}:
	default:
	}
	synctest.Wait()
}

// heal makes everything work, and requires that every stage of the run is
// answered then.
func (w *world) heal() {
	w.maps.heal()
	w.retryIfOver()
	for _, stage := range []string{task.StageBuild, task.StageTest, task.StageFinish} {
		call := stageCall(stage, 1)
		key := w.key(call)
		for n := 0; ; n++ {
			if w.rejects(false) {
				w.newPod()
			}
			w.call(call, agentLimit)
			w.step()
			time.Sleep(time.Second)
			w.mu.Lock()
			_, told := w.finals[key]
			bad := len(w.bad)
			w.mu.Unlock()
			if told || bad > 0 {
				break
			}
			if n > 1000 {
				w.fail("%s is never answered", key)
				return
			}
		}
	}
}

// retryIfOver: a run that is over, or about to be, is told nothing.
func (w *world) retryIfOver() {
	w.mu.Lock()
	over := w.state.Finished || w.state.Shutdown != ""
	w.mu.Unlock()
	if over {
		w.retry()
	}
}

func (w *world) key(call argo.Call) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	call.Request.Run.Epoch = epochName(w.epoch)
	return call.Request.Key()
}

// call calls as the agent does, which gives up after patience, and checks the
// answer against all before it.
func (w *world) call(call argo.Call, patience time.Duration) {
	ctx, cancel := context.WithTimeout(w.calls, patience)
	key, p := w.key(call), w.now
	w.mu.Lock()
	before, ended := w.finals[key]
	w.mu.Unlock()
	w.done.Go(func() {
		defer cancel()
		begun := time.Now()
		raw := p.engine.Execute(ctx, call)
		if took := time.Since(begun); took >= 25*time.Second {
			w.fail("an answer took %s", took)
		}
		if ctx.Err() == nil {
			w.check(key, raw, before, ended)
		}
	})
}

func (w *world) check(key string, raw []byte, before string, ended bool) {
	var reply argo.Reply
	if err := json.Unmarshal(raw, &reply); err != nil || reply.Node == nil {
		w.fail("bad reply %s: %v", raw, err)
		return
	}
	switch {
	case reply.IsFinal():
		w.checkFinal(key, &reply, raw)
	case reply.Requeue == "":
		w.fail("neither final nor requeued: %s", raw)
	case ended && reply.Node.Phase != "":
		w.fail("%s is running after its final reply %s", key, before)
	}
}

func (w *world) checkFinal(key string, reply *argo.Reply, raw []byte) {
	if reply.Node.Message == "" || reply.Node.Outputs == nil {
		w.fail("incomplete final reply %s", raw)
	}
	held, begun := false, false
	for _, e := range w.maps.entries() {
		begun = begun || e.Key == key
		held = held || e.Key == key && string(e.Final) == string(raw)
	}
	if !begun && strings.Contains(reply.Node.Message, kube.ErrForbidden.Error()) {
		w.rejects(true) // a plugin that starts without rights says so and runs nothing
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !held {
		w.bad = append(w.bad, fmt.Sprintf("the journal does not hold the final reply %s of %s", raw, key))
	}
	if was, told := w.finals[key]; told && was != string(raw) {
		w.bad = append(w.bad, fmt.Sprintf("another final reply for %s: %s, then %s", key, was, raw))
	}
	w.finals[key] = string(raw)
}

// stage runs a command of two steps in the worker. Each step acts on the
// outside, after announcing it, unless an earlier process has done so. Tests
// fail at their end.
func (w *world) stage(in *fakeWorker) task.Runner {
	return task.RunnerFunc(func(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
		key := req.Key()
		w.mu.Lock()
		if _, told := w.finals[key]; told {
			w.bad = append(w.bad, "ran after the final reply: "+key)
		}
		w.mu.Unlock()
		lost, exit := in.exec(req.Node, w)
		defer exit()
		for step := range 2 {
			select {
			case <-w.steps:
			case <-lost:
				return task.Result{}, fault.Newf(fault.Transient, fault.WorkerLost, "run a command", "Retry the run", "the worker has ended")
			case <-ctx.Done():
				time.Sleep(commandEnd)
				return task.Result{}, context.Cause(ctx)
			}
			if err := w.act(ctx, env, key, "step-"+strconv.Itoa(step)); err != nil {
				return task.Result{}, err
			}
		}
		if req.Stage == task.StageTest {
			return task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "run the tests", "Mend them", "exit 1")
		}
		return task.Result{Message: "done " + key, Outputs: map[string]string{task.OutputSnapshot: "s3://b/" + req.Run.Epoch}}, nil
	})
}

// rejects remembers what the present plugin does, and tells what it did.
func (w *world) rejects(now bool) (was bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.rejecting = w.rejecting, now
	return was
}

// act announces an effect and has it, unless it was had: what is outside is
// looked at first, as for a change set of that name.
func (w *world) act(ctx context.Context, env task.Env, key, name string) error {
	if err := env.Effects.Put(ctx, name, []byte(`"announced"`)); err != nil {
		return err
	}
	announced := false
	for _, e := range w.maps.entries() {
		announced = announced || e.Key == key && e.Effects[name] != nil
	}
	if !announced {
		w.fail("acted before the journal knew: %s %s", key, name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acts[key+name]++
	return nil
}

// fakeWorker is the container that runs commands: at most one for a node, and
// so for a key.
type fakeWorker struct {
	mu   sync.Mutex
	lost chan struct{}
	live map[string]int
}

func newFakeWorker() *fakeWorker {
	return &fakeWorker{lost: make(chan struct{}), live: map[string]int{}}
}

func (f *fakeWorker) exec(node string, w *world) (lost chan struct{}, exit func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live[node]++
	if f.live[node] > 1 {
		w.fail("two live commands for %s", node)
	}
	return f.lost, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.live[node]--
	}
}

func (f *fakeWorker) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.lost)
	f.lost = make(chan struct{})
}
