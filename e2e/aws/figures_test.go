package aws_test

import (
	"context"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cwsdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/cloudwatch"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// The SDK speaks CBOR to CloudWatch; what aphex sends can be read back.
func TestFigures_OfARunAreReadBack(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	cfg := emulator.DirectConfig(aws.AccountTools, region)
	ended := time.Now().UTC().Truncate(time.Minute)
	run := record.Run{Pipeline: "shop", Status: record.Succeeded, TriggeredAt: ended.Add(-90 * time.Second), CompletedAt: &ended}
	require.NoError(t, cloudwatch.New(func(context.Context) (awssdk.Config, error) { return cfg, nil }).Run(t.Context(), run, time.Time{}))

	client := cwsdk.NewFromConfig(cfg)
	by := []cwtypes.Dimension{{Name: awssdk.String("Pipeline"), Value: awssdk.String("shop")}}
	listed, err := client.ListMetrics(t.Context(), &cwsdk.ListMetricsInput{Namespace: awssdk.String(cloudwatch.Namespace)})
	require.NoError(t, err)
	var names []string
	for _, m := range listed.Metrics {
		require.Equal(t, by, m.Dimensions)
		names = append(names, *m.MetricName)
	}
	require.ElementsMatch(t, []string{"RunSucceeded", "RunFailed", "RunDuration"}, names)

	var queries []cwtypes.MetricDataQuery
	for id, name := range map[string]string{"took": "RunDuration", "well": "RunSucceeded", "badly": "RunFailed"} {
		queries = append(queries, cwtypes.MetricDataQuery{Id: &id, MetricStat: &cwtypes.MetricStat{
			Metric: &cwtypes.Metric{Namespace: awssdk.String(cloudwatch.Namespace), MetricName: &name, Dimensions: by},
			Period: awssdk.Int32(60), Stat: awssdk.String("Sum"),
		}})
	}
	read, err := client.GetMetricData(t.Context(), &cwsdk.GetMetricDataInput{
		StartTime: awssdk.Time(ended.Add(-time.Hour)), EndTime: awssdk.Time(ended.Add(time.Hour)), MetricDataQueries: queries,
	})
	require.NoError(t, err)
	values := map[string][]float64{}
	for _, r := range read.MetricDataResults {
		values[*r.Id] = r.Values
	}
	require.Equal(t, map[string][]float64{"took": {90}, "well": {1}, "badly": {0}}, values)
}
