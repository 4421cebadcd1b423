package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/metrics"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// DefaultGrace is what the pod's terminationGracePeriodSeconds of 60
	// leaves, with some seconds for the end of the process.
	DefaultGrace = 55 * time.Second
	// closeTimeout bounds the end of the listeners once nothing is executed.
	closeTimeout = 2 * time.Second
)

// Config is what the sidecar is made of. Registry, Journal and LogDir are
// required.
type Config struct {
	Registry task.Registry
	Journal  journal.Journal
	// LogDir holds stage logs until they are uploaded; it is created.
	LogDir string

	// PodUID is this pod, as in the journal.
	PodUID string
	// Runs, Logs, Recorder, Nudger and Keeper may be nil: see execution.Config.
	Runs     execution.Runs
	Logs     execution.Logs
	Recorder execution.Recorder
	Nudger   execution.Nudger
	Keeper   execution.Keeper
	// MainLogs, StayPending and Redactor are as in execution.Config. The
	// agent's token is added to what Redactor knows.
	MainLogs    bool
	StayPending bool
	Redactor    *redact.Redactor

	// Metrics, if given, counts what the parts above do; its page is served
	// beside the calls, on loopback.
	Metrics *metrics.Metrics
	// MetricsAddress, if not empty, is where that page, and nothing else, is
	// served as well: ":9464" shows it to the pod's network. An address that
	// cannot be had is a warning.
	MetricsAddress string

	// TokenFile defaults to server.DefaultTokenFile.
	TokenFile string
	// Port defaults to server.DefaultPort. Listeners, if given, are used
	// instead, and closed.
	Port      int
	Listeners []net.Listener
	// Stdout receives the stages' logs. Default: discarded.
	Stdout io.Writer
	// Logger is for the operator. Default: discarded.
	Logger *slog.Logger

	// Grace is the time from the end of ctx to the end of Run, at most. It
	// must be some seconds less than the pod's grace period. Stages are given
	// all but a tenth of it. Default: DefaultGrace.
	Grace time.Duration
	// FirstPoll, LongPoll, Requeue and ReportEvery are as in execution.Config.
	FirstPoll, LongPoll, Requeue, ReportEvery time.Duration
	// StageLimit and LogEvery are as in execution.Config.
	StageLimit, LogEvery time.Duration
}

// Run serves the agent until ctx ends (the process got SIGTERM), then drains.
//
// If the runs it served are over, it returns as soon as their stages have
// stopped. Otherwise, since the agent lives on and would take a closed
// listener for a failed stage, it answers quiet polls until Config.Grace is
// used up.
//
// An error means that the plugin could not work; the process must then end
// with a status other than 0, or Kubernetes will not start it again.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	listeners := cfg.Listeners
	if listeners == nil {
		var err error
		if listeners, err = server.Listen(ctx, cfg.Port); err != nil {
			return err
		}
	}
	// From here on everything lives on a context that outlasts ctx.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	srv := server.New(cfg.Logger)
	var handler http.Handler = srv
	var wg sync.WaitGroup
	if cfg.Metrics != nil {
		handler = cfg.Metrics.Handler(srv)
		wg.Go(func() { showMetrics(life, cfg) })
	}
	var serveErr error
	wg.Go(func() {
		serveErr = server.Serve(life, listeners, handler, closeTimeout)
		end(serveErr)
	})
	err := run(ctx, life, srv, cfg, &wg)
	end(nil)
	wg.Wait()
	return errors.Join(err, serveErr)
}

// run starts the engine, waits for the end of ctx (or of life, when a listener
// broke) and drains.
func run(ctx, life context.Context, srv *server.Server, cfg Config, wg *sync.WaitGroup) error {
	if err := os.MkdirAll(cfg.LogDir, 0o750); err != nil {
		return fmt.Errorf("create the log directory: %w", err)
	}
	engine, err := execution.New(cfg.execution())
	if err != nil {
		return err
	}
	wg.Go(func() { engine.Run(life) })
	token, err := server.ReadToken(ctx, cfg.TokenFile, cfg.Logger)
	if err != nil {
		if ctx.Err() != nil { // ended before it began
			err = nil
		}
		return err
	}
	cfg.Redactor.Add(token)
	srv.Start(engine, token)
	cfg.Logger.InfoContext(ctx, "plugin ready", slog.Int("port", cfg.Port))

	select {
	case <-ctx.Done():
	case <-life.Done():
		return nil
	}
	drain(life, engine, cfg)
	return nil
}

// showMetrics serves the page for Prometheus where the configuration wants it.
// No stage depends on that, so no failure ends anything.
func showMetrics(ctx context.Context, cfg Config) {
	if cfg.MetricsAddress == "" {
		return
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.MetricsAddress)
	if err == nil {
		err = server.Serve(ctx, []net.Listener{listener}, cfg.Metrics.Page(), closeTimeout)
	}
	if err != nil {
		cfg.Logger.WarnContext(ctx, "metrics are not shown", slog.String("address", cfg.MetricsAddress), slog.String("err", err.Error()))
	}
}

func drain(life context.Context, engine *execution.Engine, cfg Config) {
	cfg.Logger.InfoContext(life, "plugin is draining", slog.Duration("grace", cfg.Grace))
	whole := time.NewTimer(cfg.Grace)
	defer whole.Stop()
	bounded, cancel := context.WithTimeout(life, cfg.Grace-cfg.Grace/10)
	defer cancel()
	if over := engine.Drain(bounded); over {
		cfg.Logger.InfoContext(life, "runs are over")
		return
	}
	select {
	case <-whole.C:
	case <-life.Done():
	}
}

func (c Config) withDefaults() Config {
	if c.TokenFile == "" {
		c.TokenFile = server.DefaultTokenFile
	}
	if c.Port == 0 {
		c.Port = server.DefaultPort
	}
	if c.Redactor == nil {
		c.Redactor = redact.New()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Grace <= 0 {
		c.Grace = DefaultGrace
	}
	return c
}

func (c Config) execution() execution.Config {
	if m := c.Metrics; m != nil {
		c.Registry, c.Journal, c.Recorder = m.Stages(c.Registry), m.Journal(c.Journal), m.Recorder(c.Recorder)
		if c.Logs != nil {
			c.Logs = m.Logs(c.Logs)
		}
	}
	return execution.Config{
		Registry: c.Registry, Journal: c.Journal, LogDir: c.LogDir, PodUID: c.PodUID,
		Runs: c.Runs, Logs: c.Logs, MainLogs: c.MainLogs, Recorder: c.Recorder, Nudger: c.Nudger, Keeper: c.Keeper,
		Stdout: c.Stdout, Redactor: c.Redactor, Logger: c.Logger,
		FirstPoll: c.FirstPoll, LongPoll: c.LongPoll, Requeue: c.Requeue, ReportEvery: c.ReportEvery,
		Grace: c.Grace - c.Grace/5, StageLimit: c.StageLimit, LogEvery: c.LogEvery, StayPending: c.StayPending,
	}
}

// readyDelay is the pause between two looks at a plugin that is not up.
const readyDelay = 50 * time.Millisecond

// WaitReady returns once a plugin answers at addr ("127.0.0.1:4355"), for the
// postStart hook that keeps the agent from starting before it. It waits for
// the listener and the token, not for the cluster.
//
// Errors: the cause of ctx.
func WaitReady(ctx context.Context, addr string) error {
	for {
		if Probe(ctx, addr, server.ReadyPath) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("plugin at %s is not ready: %w", addr, context.Cause(ctx))
		case <-time.After(readyDelay):
		}
	}
}

// probeTimeout is below the timeoutSeconds of the container's probes.
const probeTimeout = 4 * time.Second

// Probe asks the plugin at addr once: server.HealthPath whether it lives,
// server.ReadyPath whether it executes calls.
//
// Errors: nobody answers in time, or what else was answered.
func Probe(ctx context.Context, addr, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the plugin: %w", err)
	}
	resp, err := (&http.Client{Timeout: probeTimeout}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the plugin: %w", err)
	}
	_ = resp.Body.Close() // nothing is read from it
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("plugin at %s%s answers %s", addr, path, resp.Status)
	}
	return nil
}
