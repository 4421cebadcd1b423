package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
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

// stageTimes measures deploy-pipeline where there is nothing to change, without
// and with an app of the pipeline's own, and validate of ten accounts that are
// far away. The runs end at their first environment, which has no app.
func stageTimes(ctx context.Context, out io.Writer, l *lab.Lab) error {
	endpoint, stop, err := distant(ctx, l)
	if err != nil {
		return err
	}
	defer stop()
	spent, err := timeRuns(ctx, l, "stages", endpoint, nil)
	if err != nil {
		return err
	}
	own, err := timeRuns(ctx, l, "stages-own", l.AWS.Endpoint(), ownApp())
	if err != nil {
		return err
	}
	for _, row := range []struct {
		stage, what string
		times       []time.Duration
		aim         time.Duration
	}{
		{task.StageDeployPipeline, "nothing to change", spent[task.StageDeployPipeline], aimPipeline},
		{task.StageDeployPipeline, "pipeline-infra as wanted, beyond its synth", own[task.StageDeployPipeline], aimPipeline},
		{task.StageValidate, fmt.Sprintf("%d accounts, %s away, clone included", tenAccounts, farAway), spent[task.StageValidate], aimValidate},
	} {
		// The first run applies what kubectl applied, and meets cold caches.
		least := slices.Min(row.times[1:])
		_, _ = fmt.Fprintf(out, "stage %-16s %-42s %6.3f s (of %v); aim %s (%s)\n", row.stage, row.what, least.Seconds(), row.times, row.aim, verdict(least <= row.aim))
	}
	return nil
}

// ownApp is an app of the pipeline's own with one stack.
func ownApp() map[string]string {
	return map[string]string{
		"pipeline-infra/cdk.json": `{"app": "mkdir -p \"$CDK_OUTDIR\" && cp assembly/* \"$CDK_OUTDIR\""}`,
		"pipeline-infra/assembly/manifest.json": `{"version": "48.0.0", "artifacts": {"stages-own": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region",
  "properties": {"templateFile": "template.json", "stackName": "stages-own",
    "requiresBootstrapStackVersion": 6, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version",
    "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}",
    "cloudFormationExecutionRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-cfn-exec-role-${AWS::AccountId}-${AWS::Region}"}}}}`,
		"pipeline-infra/assembly/template.json": parameters(3, "one"),
	}
}

// timeRuns times the stages of some runs of a pipeline whose repository has
// files beside its configuration.
func timeRuns(ctx context.Context, l *lab.Lab, name, endpoint string, files map[string]string) (map[string][]time.Duration, error) {
	p, err := l.NewPipeline(ctx, name, func(i *pipeline.Installation) { i.EndpointURL = endpoint })
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	config.WriteString("version: \"1.0\"\nbuild: {commands: [\"true\"]}\nenvironments:\n")
	for n := range tenAccounts {
		fmt.Fprintf(&config, "  - {name: e%d, region: eu-west-1, account: \"%012d\", stacks: [{name: none, path: cdk.json}]}\n", n, 222222222200+n)
	}
	write := map[string]string{pipeline.DefaultFile: config.String()}
	maps.Copy(write, files)
	commit, err := p.Push(ctx, gitserver.Change{Write: write})
	if err != nil {
		return nil, err
	}
	if err := p.Apply(ctx, []byte(config.String())); err != nil {
		return nil, err
	}
	spent := map[string][]time.Duration{}
	for range stageRuns {
		if err := timeStages(ctx, l, p, commit, spent); err != nil {
			return nil, err
		}
	}
	return spent, nil
}

// timeStages adds the times of one run's stages, without those of synths.
func timeStages(ctx context.Context, l *lab.Lab, p *lab.Pipeline, commit string, spent map[string][]time.Duration) error {
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
		synths, err := synthTime(ctx, l, p, status.Node(stage).Output(task.OutputLogURL))
		if err != nil {
			return err
		}
		spent[stage] = append(spent[stage], (entries[i].EndedAt.Sub(entries[i].StartedAt) - synths).Round(time.Millisecond))
	}
	return nil
}

// synthTime adds up what a stage's log says of the apps it has synthesized.
func synthTime(ctx context.Context, l *lab.Lab, p *lab.Pipeline, logURL string) (time.Duration, error) {
	bucket := store.NewS3(l.AWS.Config(aws.AccountTools, p.Installation.Region), p.Installation.Bucket, "")
	body, _, err := bucket.Get(ctx, strings.TrimPrefix(logURL, "s3://"+p.Installation.Bucket+"/"))
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return 0, err
	}
	total := time.Duration(0)
	for _, said := range regexp.MustCompile(`synthesized in (\S+)`).FindAllSubmatch(text, -1) {
		spent, err := time.ParseDuration(string(said[1]))
		if err != nil {
			return 0, err
		}
		total += spent
	}
	return total, nil
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
