package cloudwatch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/cloudwatch"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// figure is one figure as it arrived.
type figure struct {
	name, unit, by string
	value          float64
}

// endpoint takes figures as CloudWatch does and refuses what it would refuse.
type endpoint struct {
	url string

	mu       sync.Mutex
	requests int
	figures  []figure
	problems []string
	refuse   bool
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{}
	server := httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *endpoint) sender() *cloudwatch.Sender {
	return cloudwatch.New(func(context.Context) (aws.Config, error) {
		return aws.Config{Region: "eu-west-1", BaseEndpoint: &e.url, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "")}, nil
	})
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests++
	w.Header().Set("smithy-protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	if e.refuse {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(cbor.Encode(cbor.Map{"__type": cbor.String("AccessDenied"), "message": cbor.String("not you")}))
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/operation/PutMetricData") {
		e.problems = append(e.problems, r.URL.Path)
	}
	if err := e.take(r); err != nil {
		e.problems = append(e.problems, err.Error())
	}
	_, _ = w.Write(cbor.Encode(cbor.Map{}))
}

func (e *endpoint) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(body); err != nil {
		return err
	}
	value, err := cbor.Decode(raw.Bytes())
	if err != nil {
		return err
	}
	doc, _ := value.(cbor.Map)
	list, _ := doc["MetricData"].(cbor.List)
	if doc["Namespace"] != cbor.String("AphexPipeline") || len(list) == 0 || len(list) > 1000 {
		e.problems = append(e.problems, "namespace or number of figures")
	}
	for _, item := range list {
		e.figure(item.(cbor.Map))
	}
	return nil
}

func (e *endpoint) figure(m cbor.Map) {
	f := figure{name: string(m["MetricName"].(cbor.String)), unit: string(m["Unit"].(cbor.String))}
	switch v := m["Value"].(type) {
	case cbor.Float64:
		f.value = float64(v)
	case cbor.Float32:
		f.value = float64(v)
	case cbor.Uint:
		f.value = float64(v)
	}
	dimensions, _ := m["Dimensions"].(cbor.List)
	for _, d := range dimensions {
		name, value := string(d.(cbor.Map)["Name"].(cbor.String)), string(d.(cbor.Map)["Value"].(cbor.String))
		f.by += name + "=" + value + " "
		ascii := !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
		if !ascii || len(value) > 255 || strings.TrimSpace(value) == "" || value[0] == ':' {
			e.problems = append(e.problems, "dimension "+name+" is "+strconv.Quote(value))
		}
	}
	if m["Timestamp"] == nil || math.IsNaN(f.value) || f.value < 0 || len(dimensions) > 30 {
		e.problems = append(e.problems, f.name)
	}
	e.figures = append(e.figures, f)
}

func TestSender_RunAndStages(t *testing.T) {
	t.Parallel()
	e, at := newEndpoint(t), time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	require.NoError(t, e.sender().Run(t.Context(), record.Run{
		Pipeline: "shop", Status: record.Failed, TriggeredAt: at, CompletedAt: new(at.Add(90 * time.Second)),
		Artifacts: &record.ArtifactTotal{Count: 2, SizeBytes: 5 << 40},
		Stages: []record.Stage{
			{Stage: "build", Status: record.Succeeded, StartedAt: at, CompletedAt: new(at.Add(12500 * time.Millisecond))},
			{Stage: "test", Environment: "dev", Status: record.Failed, StartedAt: at, CompletedAt: new(at.Add(time.Second))},
			{Stage: "deploy-env", Environment: "prod", Status: record.Running, StartedAt: at},
			{Stage: "validate", Status: record.Succeeded, StartedAt: at.Add(-time.Hour), CompletedAt: new(at.Add(-time.Minute))},
		},
	}, at.Add(-time.Minute)))
	require.Empty(t, e.problems)
	require.Equal(t, 1, e.requests, "one batch")
	require.Equal(t, []figure{
		{"RunSucceeded", "Count", "Pipeline=shop ", 0},
		{"RunFailed", "Count", "Pipeline=shop ", 1},
		{"RunDuration", "Seconds", "Pipeline=shop ", 90},
		{"ArtifactCount", "Count", "Pipeline=shop ", 2},
		{"ArtifactSize", "Bytes", "Pipeline=shop ", 5 << 40},
		{"StageSucceeded", "Count", "Pipeline=shop Stage=build ", 1},
		{"StageFailed", "Count", "Pipeline=shop Stage=build ", 0},
		{"StageDuration", "Seconds", "Pipeline=shop Stage=build ", 12.5},
		{"StageSucceeded", "Count", "Pipeline=shop Stage=test Environment=dev ", 0},
		{"StageFailed", "Count", "Pipeline=shop Stage=test Environment=dev ", 1},
		{"StageDuration", "Seconds", "Pipeline=shop Stage=test Environment=dev ", 1},
	}, e.figures)
}

// Feature: aphex-pipeline, Property 17: Deployment metrics emission
//
// Whatever stacks are called and however they end, CloudWatch is told of each
// whether it succeeded or failed, in requests that it takes.
func TestSender_EveryDeployment(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	sender, at := e.sender(), time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		e.mu.Lock()
		e.figures = nil
		e.mu.Unlock()
		stacks := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) cloudwatch.Deployment {
			return cloudwatch.Deployment{
				Stack:     rapid.OneOf(rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,127}`), rapid.String(), rapid.Just(strings.Repeat("ü", 300))).Draw(t, "stack"),
				Succeeded: rapid.Bool().Draw(t, "succeeded"), Began: at, Ended: at.Add(time.Duration(rapid.Int64Range(-1e9, 1e13).Draw(t, "took"))),
			}
		}), 0, 400).Draw(t, "stacks")
		require.NoError(t, sender.Deployments(t.Context(), "shop", rapid.String().Draw(t, "environment"), stacks))
		e.mu.Lock()
		defer e.mu.Unlock()
		require.Empty(t, e.problems)
		require.Len(t, e.figures, 3*len(stacks))
		for i, stack := range stacks {
			succeeded, failed := e.figures[3*i], e.figures[3*i+1]
			require.Equal(t, []string{"DeploymentSucceeded", "DeploymentFailed", "DeploymentDuration"}, []string{succeeded.name, failed.name, e.figures[3*i+2].name})
			require.Equal(t, stack.Succeeded, succeeded.value == 1)
			require.Equal(t, !stack.Succeeded, failed.value == 1)
			require.InDelta(t, 1, succeeded.value+failed.value, 0)
		}
	})
}

func TestSender_RefusalIsTold(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.refuse = true
	err := e.sender().Deployments(t.Context(), "shop", "dev", []cloudwatch.Deployment{{Stack: "api"}})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AWSRejected})
	require.ErrorContains(t, err, "put 3 figures into CloudWatch")
	require.NotContains(t, err.Error(), "secret")
}
