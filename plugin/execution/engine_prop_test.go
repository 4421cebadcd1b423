package execution_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// world is what outlives the plugin's processes: the journal, the outside that
// stages act upon, and what the agent was told.
type world struct {
	dir string

	mu sync.Mutex
	// epoch is the try that the run is in.
	epoch int
	// steps lets the stage of a key take one step per token.
	steps chan struct{}
	live  map[string]int
	// acts are the effects on the outside, by key and step.
	acts map[string]int
	bad  []string
	// finals are the final replies the agent got, by key.
	finals map[string]string
}

func (w *world) State(context.Context, task.Run) (execution.RunState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return execution.RunState{Epoch: epochName(w.epoch)}, nil
}

// Watch tells the state once: the model changes it between calls only, and the
// next process asks for it.
func (w *world) Watch(ctx context.Context, _ task.Run, fn func(execution.RunState)) error {
	state, err := w.State(ctx, task.Run{})
	fn(state)
	<-ctx.Done()
	return err
}

func (w *world) Wanted(context.Context, task.Run, string) (bool, error) { return true, nil }

func epochName(n int) string {
	return time.Date(2026, 11, 24, 6, n, 0, 0, time.UTC).Format(time.RFC3339)
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, fmt.Sprintf(format, args...))
}

// stage acts twice on the outside, each time after announcing it, and finds
// again what an earlier process did. Stages with an odd name fail at the end.
func (w *world) stage(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	key := req.Key()
	w.mu.Lock()
	w.live[key]++
	if w.live[key] > 1 {
		w.bad = append(w.bad, "two live tasks for "+key)
	}
	if _, told := w.finals[key]; told {
		w.bad = append(w.bad, "ran after the final reply: "+key)
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.live[key]--
		w.mu.Unlock()
	}()
	for step := range 2 {
		select {
		case <-w.steps:
		case <-ctx.Done():
			return task.Result{}, context.Cause(ctx)
		}
		name := fmt.Sprintf("step-%d", step)
		_, known, err := env.Effects.Get(ctx, name)
		if err != nil {
			return task.Result{}, err
		}
		if !known {
			if err := env.Effects.Put(ctx, name, []byte(`"announced"`)); err != nil {
				return task.Result{}, err
			}
		}
		w.act(ctx, key, name)
	}
	if req.Stage == task.StageTest {
		return task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "run the tests", "Mend them", "exit 1")
	}
	return task.Result{Message: "done " + key, Outputs: map[string]string{task.OutputSnapshot: "s3://b/" + req.Run.Epoch}}, nil
}

// act does something outside, idempotently by name, and checks that the file
// on disk, which is all that a crash leaves, already announces it.
func (w *world) act(ctx context.Context, key, name string) {
	book, err := journal.ReadFile(ctx, w.dir, "uid-1")
	if err != nil {
		w.fail("journal cannot be read: %v", err)
		return
	}
	i := slices.IndexFunc(book, func(e journal.Entry) bool { return e.Key == key })
	if i < 0 || book[i].Effects[name] == nil {
		w.fail("acted before the journal knew: %s %s", key, name)
	}
	w.mu.Lock()
	w.acts[key+name]++
	w.mu.Unlock()
}

// process is one life of the plugin.
type process struct {
	engine *execution.Engine
	kill   context.CancelFunc
	done   chan struct{}
}

func (w *world) start(t *rapid.T) *process {
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	engine, err := execution.New(execution.Config{
		Registry: task.Registry{task.StageBuild: task.RunnerFunc(w.stage), task.StageTest: task.RunnerFunc(w.stage)},
		Journal:  journal.NewFiles(w.dir, "pod"), LogDir: w.dir, PodUID: "pod", Runs: w,
		FirstPoll: 2 * time.Millisecond, LongPoll: 4 * time.Millisecond, Requeue: time.Millisecond, ReportEvery: time.Millisecond,
		Grace: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(context.Background())
	p := &process{engine: engine, kill: kill, done: make(chan struct{})}
	go func() { engine.Run(ctx); close(p.done) }()
	return p
}

// crash ends the process without a word: what is not on disk is lost.
func (p *process) crash() {
	p.kill()
	<-p.done
}

// TestEngine_Laws drives calls, steps of stages, crashes, drains and retries in
// any order. Laws: at most one live task per key; the final reply of a key is
// the same for ever, over all processes; nothing but it follows it; no effect
// before its journal entry.
func TestEngine_Laws(t *testing.T) {
	t.Parallel()
	root, worlds := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		worlds++
		w := &world{dir: filepath.Join(root, strconv.Itoa(worlds)), steps: make(chan struct{}), live: map[string]int{}, acts: map[string]int{}, finals: map[string]string{}}
		p := w.start(rt)
		defer func() { p.crash() }()
		rt.Repeat(map[string]func(*rapid.T){
			"call": func(t *rapid.T) { w.call(t, p, drawCall(t)) },
			"call again": func(t *rapid.T) {
				call := drawCall(t)
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() { w.call(t, p, call) })
				}
				wg.Wait()
			},
			"step": func(*rapid.T) {
				select {
				case w.steps <- struct{}{}:
				case <-time.After(2 * time.Millisecond):
				}
			},
			"crash": func(t *rapid.T) {
				p.crash()
				p = w.start(t)
			},
			"drain": func(t *rapid.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				p.engine.Drain(ctx)
				w.call(t, p, drawCall(t))
				p.crash()
				p = w.start(t)
			},
			"retry": func(t *rapid.T) {
				p.crash()
				w.mu.Lock()
				w.epoch++
				w.mu.Unlock()
				p = w.start(t)
			},
			"": func(t *rapid.T) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.bad) > 0 {
					t.Fatal(w.bad)
				}
			},
		})
	})
}

func drawCall(t *rapid.T) argo.Call {
	stage := rapid.SampledFrom([]string{task.StageBuild, task.StageTest}).Draw(t, "stage")
	return argo.Call{Digest: "sha256:00", Request: task.Request{
		Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Stage: stage, Node: "shop-1." + stage,
		Attempt: rapid.IntRange(0, 1).Draw(t, "attempt"), Pipeline: "shop",
	}}
}

// call calls as the agent does and checks the answer against all before it.
func (w *world) call(t *rapid.T, p *process, call argo.Call) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.mu.Lock()
	call.Request.Run.Epoch = epochName(w.epoch)
	key := call.Request.Key()
	before, ended := w.finals[key]
	w.mu.Unlock()
	call.Request.Run.Epoch = ""
	raw := p.engine.Execute(ctx, call)
	var reply argo.Reply
	if err := json.Unmarshal(raw, &reply); err != nil || reply.Node == nil {
		w.fail("bad reply %s: %v", raw, err)
		return
	}
	switch {
	case reply.IsFinal():
		if ended && before != string(raw) {
			w.fail("another final reply for %s: %s, then %s", key, before, raw)
		}
		if reply.Node.Message == "" || reply.Node.Outputs == nil {
			w.fail("incomplete final reply %s", raw)
		}
		w.mu.Lock()
		w.finals[key] = string(raw)
		w.mu.Unlock()
	case reply.Requeue == "":
		w.fail("neither final nor requeued: %s", raw)
	case ended && reply.Node.Phase != "":
		w.fail("running after final: %s", raw)
	}
}
