package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
)

// RunStage executes one stage in the foreground and returns its final reply,
// for pods that have one stage each. Journal, records, logs and cancellation
// are those of Run; what is missing is Argo's agent, and so TokenFile, Port,
// Listeners, Nudger and Keeper are not used.
//
// When ctx ends (the process got SIGTERM) the stage of a run that is over or
// shut down is cancelled, and any other is left without an outcome for the
// next pod to go on with; the reply is then a failure that says so.
//
// Errors: what the engine lacks. A stage that fails is a reply.
func RunStage(ctx context.Context, cfg Config, call argo.Call) (argo.Reply, error) {
	cfg = cfg.withDefaults()
	cfg.Nudger, cfg.Keeper = nil, nil // the controller watches pods by itself, and there is no task set
	if err := os.MkdirAll(cfg.LogDir, 0o750); err != nil {
		return argo.Reply{}, fmt.Errorf("create the log directory: %w", err)
	}
	engine, err := execution.New(cfg.execution())
	if err != nil {
		return argo.Reply{}, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { engine.Run(life) })
	defer wg.Wait()
	defer end()
	reply, err := ask(ctx, engine, call)
	if err != nil || reply.IsFinal() {
		return reply, err
	}
	return leave(life, engine, cfg, call)
}

// ask calls the engine until it has the final reply, or returns another one
// when ctx ends before that.
func ask(ctx context.Context, engine *execution.Engine, call argo.Call) (argo.Reply, error) {
	for {
		reply, err := decodeReply(engine.Execute(ctx, call))
		if err != nil || reply.IsFinal() || ctx.Err() != nil {
			return reply, err
		}
		if engine.Abandoned(call) {
			return decodeReply(engine.Reject(ctx, call, fault.Newf(fault.System, fault.JournalConflict, "run the stage",
				"Look at the run's other pods, then retry the run if it has failed", "another pod has taken the run over, or the run is gone")))
		}
		pause, err := time.ParseDuration(reply.Requeue)
		if err != nil {
			return argo.Reply{}, fmt.Errorf("read the engine's reply: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// leave ends the stage in order, and says how.
func leave(life context.Context, engine *execution.Engine, cfg Config, call argo.Call) (argo.Reply, error) {
	bounded, cancel := context.WithTimeout(life, cfg.Grace-cfg.Grace/10)
	defer cancel()
	end := fault.Newf(fault.Cancelled, fault.Cancellation, "run the stage", "Retry the run: it goes on where it was", "its pod is being removed")
	if engine.Drain(bounded) {
		end = fault.Newf(fault.Cancelled, fault.Cancellation, "run the stage", "Retry or submit the run when it shall go on", "the run was shut down")
	}
	return decodeReply(engine.Reject(life, call, end))
}

func decodeReply(data []byte) (argo.Reply, error) {
	var reply argo.Reply
	if err := json.Unmarshal(data, &reply); err != nil {
		return argo.Reply{}, fmt.Errorf("read the engine's reply: %w", err)
	}
	return reply, nil
}
