package execution_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// TestEngine_Laws lets calls and everything that may happen to agent, plugin,
// worker, pod, run and journal interleave in any order, in the plugin's real
// times on a clock of the test's own. Laws: at most one live command per key in
// a worker; the final reply of a key is the same for ever, over all processes;
// nothing but it follows it, and no command; the journal holds it before it is
// given; no effect before its journal entry, and each effect once; no answer
// takes 30 s. At the end, once everything works again, every stage is answered.
func TestEngine_Laws(t *testing.T) {
	t.Parallel()
	root, worlds := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		worlds++
		dir := filepath.Join(root, strconv.Itoa(worlds))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			rt.Fatal(err)
		}
		// What ends a case is a panic of rapid's own, which has to leave the
		// bubble in order.
		var ended any
		synctest.Test(t, func(*testing.T) {
			defer func() { ended = recover() }()
			interleave(rt, newWorld(dir))
		})
		if ended != nil {
			panic(ended)
		}
	})
}

func interleave(rt *rapid.T, w *world) {
	w.boot()
	defer w.end()
	rt.Repeat(map[string]func(*rapid.T){
		"call": func(t *rapid.T) { w.call(drawCall(t), drawPatience(t)) },
		"call again": func(t *rapid.T) {
			call, patience := drawCall(t), drawPatience(t)
			for range 3 {
				w.call(call, patience)
			}
		},
		"time passes": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 50, 500, 3_500, 21_000, 50_000}).Draw(t, "ms")) * time.Millisecond)
		},
		"step":                   func(*rapid.T) { w.step() },
		"agent is started again": func(*rapid.T) { w.hangUp() },
		"plugin is killed": func(*rapid.T) {
			w.crash()
			w.boot()
		},
		"plugin is killed and started late": func(t *rapid.T) {
			w.crash()
			time.Sleep(time.Duration(rapid.IntRange(0, 20).Draw(t, "s")) * time.Second)
			w.boot()
		},
		"worker is started again":    func(*rapid.T) { w.restartWorker() },
		"new pod":                    func(*rapid.T) { w.newPod() },
		"new pod beside the old one": func(*rapid.T) { w.leaveBehind() },
		"drain": func(t *rapid.T) {
			call, patience := drawCall(t), drawPatience(t)
			w.drain()
			w.call(call, patience)
			time.Sleep(time.Minute)
			w.newPod()
		},
		"stop":               func(t *rapid.T) { w.shutDown(rapid.SampledFrom([]string{"Stop", "Terminate"}).Draw(t, "shutdown")) },
		"retry":              func(*rapid.T) { w.retry() },
		"journal is touched": func(*rapid.T) { w.maps.touch() },
		"journal's answers are lost": func(t *rapid.T) {
			n := rapid.IntRange(1, 3).Draw(t, "answers")
			w.maps.fault(func() { w.maps.lost = n })
		},
		"journal's writes fail": func(t *rapid.T) {
			n := rapid.IntRange(1, 3).Draw(t, "writes")
			w.maps.fault(func() { w.maps.failing = n })
		},
		"journal's writes are refused": func(t *rapid.T) {
			n := rapid.IntRange(1, 60).Draw(t, "writes")
			w.maps.fault(func() { w.maps.refused = n })
		},
		"API server goes away": func(t *rapid.T) { w.maps.goAway(drawOutage(t)) },
		"": func(t *rapid.T) {
			if bad := w.complaints(); len(bad) > 0 {
				t.Fatal(bad)
			}
		},
	})
	w.heal()
	if bad := w.complaints(); len(bad) > 0 {
		rt.Fatal(bad)
	}
}

// drawOutage draws how long the API server is away: a blip, a restart, more
// than the journal waits for one write.
func drawOutage(t *rapid.T) time.Duration {
	return time.Duration(rapid.SampledFrom([]int{1, 20, 150, 400}).Draw(t, "outage")) * time.Second
}

// drawPatience draws after how long the agent gives a call up: its own limit,
// or less if it is started again.
func drawPatience(t *rapid.T) time.Duration {
	return time.Duration(rapid.SampledFrom([]int{10, 2_000, 30_000}).Draw(t, "patience")) * time.Millisecond
}

func drawCall(t *rapid.T) argo.Call {
	stage := rapid.SampledFrom([]string{task.StageBuild, task.StageTest, task.StageFinish}).Draw(t, "stage")
	return stageCall(stage, rapid.IntRange(0, 1).Draw(t, "attempt"))
}

func stageCall(stage string, attempt int) argo.Call {
	return argo.Call{Digest: "sha256:00", Request: task.Request{
		Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Stage: stage, Node: "shop-1." + stage,
		Attempt: attempt, Pipeline: "shop",
	}}
}

// newEngine composes the plugin of the world's present pod, with its real times.
func (w *world) newEngine() (*execution.Engine, error) {
	pod := fmt.Sprintf("pod-%d", w.pod)
	return execution.New(execution.Config{
		Registry: task.Registry{
			task.StageBuild: w.stage(w.worker), task.StageTest: w.stage(w.worker), task.StageFinish: w.stage(w.worker),
		},
		Journal: journal.NewKube(&podMaps{w.maps, pod, w.fail}, pod, "shop"), LogDir: w.dir, PodUID: pod, Runs: w,
	})
}
