package cloudwatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwsdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/record"
)

const (
	// Namespace is that of all figures.
	Namespace = "AphexPipeline"
	// Limit bounds one call: a run that has ended should not seem to go on.
	Limit = 8 * time.Second
	// batch is the number of figures of one request; CloudWatch takes 1000, in
	// at most 1 MB.
	batch = 500
	// attempts and backoff are the tries of one request.
	attempts = 3
	backoff  = time.Second
	// maxDimension is the longest value of a dimension.
	maxDimension = 255
)

// Deployment is how the deployment of one stack ended.
type Deployment struct {
	Stack     string
	Succeeded bool
	Began     time.Time
	Ended     time.Time
}

// Sender sends figures. It is safe for concurrent use.
type Sender struct {
	base func(ctx context.Context) (aws.Config, error)
}

// New returns a Sender; base is the process's own AWS identity.
func New(base func(ctx context.Context) (aws.Config, error)) *Sender { return &Sender{base: base} }

// Run sends the figures of a run that has ended: RunSucceeded, RunFailed and
// RunDuration by pipeline; ArtifactCount and ArtifactSize, in bytes, by
// pipeline if its build has published any; StageSucceeded, StageFailed and StageDuration by
// pipeline, stage and, where there is one, environment. Counts are 0 or 1, so
// that their average is a rate; durations are in seconds. Stages that had ended
// by since, which the figures of an earlier try have, are left out.
//
// Errors: CredentialsMissing, AWSRejected, AWSUnavailable.
func (s *Sender) Run(ctx context.Context, run record.Run, since time.Time) error {
	var figures []cwtypes.MetricDatum
	pipeline := dimensions("Pipeline", run.Pipeline)
	if run.CompletedAt != nil {
		figures = append(figures, outcome("Run", run.Status == record.Succeeded, run.TriggeredAt, *run.CompletedAt, pipeline)...)
	}
	if total := run.Artifacts; total != nil && run.CompletedAt != nil {
		figures = append(figures,
			figure("ArtifactCount", float64(total.Count), cwtypes.StandardUnitCount, *run.CompletedAt, pipeline),
			figure("ArtifactSize", float64(total.SizeBytes), cwtypes.StandardUnitBytes, *run.CompletedAt, pipeline))
	}
	for _, stage := range run.Stages {
		if stage.CompletedAt == nil || !stage.CompletedAt.After(since) {
			continue
		}
		by := dimensions("Pipeline", run.Pipeline, "Stage", stage.Stage, "Environment", stage.Environment)
		figures = append(figures, outcome("Stage", stage.Status == record.Succeeded, stage.StartedAt, *stage.CompletedAt, by)...)
	}
	return s.send(ctx, figures)
}

// Deployments sends DeploymentSucceeded, DeploymentFailed and
// DeploymentDuration of stacks, by pipeline, environment and stack.
//
// Errors: as Run.
func (s *Sender) Deployments(ctx context.Context, pipeline, environment string, stacks []Deployment) error {
	var figures []cwtypes.MetricDatum
	for _, d := range stacks {
		by := dimensions("Pipeline", pipeline, "Environment", environment, "Stack", d.Stack)
		figures = append(figures, outcome("Deployment", d.Succeeded, d.Began, d.Ended, by)...)
	}
	return s.send(ctx, figures)
}

// outcome are the three figures of something that ended.
func outcome(of string, succeeded bool, began, ended time.Time, by []cwtypes.Dimension) []cwtypes.MetricDatum {
	counts := map[bool]float64{true: 1, false: 0}
	return []cwtypes.MetricDatum{
		figure(of+"Succeeded", counts[succeeded], cwtypes.StandardUnitCount, ended, by),
		figure(of+"Failed", counts[!succeeded], cwtypes.StandardUnitCount, ended, by),
		figure(of+"Duration", max(ended.Sub(began), 0).Seconds(), cwtypes.StandardUnitSeconds, ended, by),
	}
}

func figure(name string, value float64, unit cwtypes.StandardUnit, at time.Time, by []cwtypes.Dimension) cwtypes.MetricDatum {
	return cwtypes.MetricDatum{MetricName: aws.String(name), Value: aws.Float64(value), Unit: unit, Timestamp: aws.Time(at.UTC()), Dimensions: by}
}

// dimensions takes names and values in turn and leaves out what has no value.
func dimensions(pairs ...string) []cwtypes.Dimension {
	var list []cwtypes.Dimension
	for i := 0; i+1 < len(pairs); i += 2 {
		if value := value(pairs[i+1]); value != "" {
			list = append(list, cwtypes.Dimension{Name: aws.String(pairs[i]), Value: aws.String(value)})
		}
	}
	return list
}

// value makes text what CloudWatch takes: printable ASCII, not too long, with
// something beside blanks, and not beginning with a colon.
func value(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	text = strings.TrimSpace(strings.TrimLeft(text, ": "))
	return text[:min(len(text), maxDimension)]
}

func (s *Sender) send(ctx context.Context, figures []cwtypes.MetricDatum) error {
	if len(figures) == 0 {
		return nil
	}
	op := fmt.Sprintf("put %d figures into CloudWatch", len(figures))
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	conf, err := s.base(ctx)
	if err != nil {
		return err
	}
	client := cwsdk.NewFromConfig(conf, func(o *cwsdk.Options) { o.Retryer = awserr.Retryer(attempts, backoff) })
	for part := range slices.Chunk(figures, batch) {
		if _, err := client.PutMetricData(ctx, &cwsdk.PutMetricDataInput{Namespace: aws.String(Namespace), MetricData: part}); err != nil {
			return awserr.Fault(ctx, err, op)
		}
	}
	return nil
}
