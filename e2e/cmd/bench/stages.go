package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// stageRuns is how often each stage is timed.
	stageRuns = 3
	// tenAccounts is how many accounts validate proves, and farAway the time
	// that every request to AWS takes.
	tenAccounts = 10
	farAway     = 30 * time.Millisecond
	// The aims for the stages themselves, from their beginning to their end.
	aimPipeline, aimValidate = 500 * time.Millisecond, time.Second
)

// stageTimes measures deploy-pipeline where there is nothing to change, and
// validate of ten accounts that are far away. The runs end at their first
// environment, which has no app.
func stageTimes(ctx context.Context, out io.Writer, l *lab.Lab) error {
	endpoint, stop, err := distant(ctx, l)
	if err != nil {
		return err
	}
	defer stop()
	p, err := l.NewPipeline(ctx, "stages", func(i *pipeline.Installation) { i.EndpointURL = endpoint })
	if err != nil {
		return err
	}
	var config strings.Builder
	config.WriteString("version: \"1.0\"\nbuild: {commands: [\"true\"]}\nenvironments:\n")
	for n := range tenAccounts {
		fmt.Fprintf(&config, "  - {name: e%d, region: eu-west-1, account: \"%012d\", stacks: [{name: none, path: cdk.json}]}\n", n, 222222222200+n)
	}
	commit, err := p.Push(ctx, gitserver.Change{Write: map[string]string{pipeline.DefaultFile: config.String()}})
	if err != nil {
		return err
	}
	if err := p.Apply(ctx, []byte(config.String())); err != nil {
		return err
	}
	spent := map[string][]time.Duration{}
	for range stageRuns {
		if err := timeStages(ctx, p, commit, spent); err != nil {
			return err
		}
	}
	for _, row := range []struct {
		stage, what string
		aim         time.Duration
	}{
		{task.StageDeployPipeline, "nothing to change", aimPipeline},
		{task.StageValidate, fmt.Sprintf("%d accounts, %s away, clone included", tenAccounts, farAway), aimValidate},
	} {
		// The first run applies what kubectl applied, and meets cold caches.
		times := spent[row.stage][1:]
		least := slices.Min(times)
		_, _ = fmt.Fprintf(out, "stage %-16s %-42s %6.3f s (of %v); aim %s (%s)\n", row.stage, row.what, least.Seconds(), spent[row.stage], row.aim, verdict(least <= row.aim))
	}
	return nil
}

// timeStages adds the times of one run's stages.
func timeStages(ctx context.Context, p *lab.Pipeline, commit string, spent map[string][]time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit)
	if err != nil {
		return err
	}
	status, err := run.Wait(ctx)
	if err != nil {
		return err
	}
	entries, err := run.Journal(ctx, status.UID)
	if err != nil {
		return err
	}
	for _, stage := range []string{task.StageValidate, task.StageDeployPipeline} {
		i := slices.IndexFunc(entries, func(e journal.Entry) bool { return e.Stage == stage })
		if i < 0 || entries[i].EndedAt == nil || entries[i].Phase != "Succeeded" {
			return fmt.Errorf("stage %s of run %s did not end well: %s", stage, run.Name, status.Node(stage).Message)
		}
		spent[stage] = append(spent[stage], entries[i].EndedAt.Sub(entries[i].StartedAt).Round(time.Millisecond))
	}
	return nil
}

// distant is the emulated AWS, farAway.
func distant(ctx context.Context, l *lab.Lab) (endpoint string, stop func(), err error) {
	target, err := url.Parse(l.AWS.Endpoint())
	if err != nil {
		return "", nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(l.Cluster.HostAddress(), "0"))
	if err != nil {
		return "", nil, err
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is part of the signature
	}}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(farAway):
			proxy.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	return "http://" + listener.Addr().String(), func() { _ = server.Close(); <-done }, nil
}
