package deploy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

const limitsHead = "version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: eu-west-1\n  account: \"111111111111\"\n"

// An asset with destinations in two regions goes to each with the role of that
// destination, in that region.
func TestRun_AssetGoesToTwoRegionsEachWithItsRole(t *testing.T) {
	t.Parallel()
	c := &cloud{}
	_, err := deployed(t, c, limitsHead+"  stacks:\n  - {name: shop, path: a}\n", map[string]string{
		"shop.template.json": `{}`,
		"shop.assets.json": `{"version": "55.0.0", "files": {"f": {"source": {"path": "site.txt", "packaging": "file"}, "destinations": {
			"here": {"bucketName": "assets-${AWS::AccountId}-${AWS::Region}", "objectKey": "site", "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/publish-${AWS::Region}"},
			"there": {"bucketName": "assets-${AWS::AccountId}-${AWS::Region}", "objectKey": "site", "region": "us-east-1", "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/publish-${AWS::Region}"}}}}}`,
		"site.txt": "shop",
		"manifest.json": `{"version": "55.0.0", "artifacts": {
			"shop.assets": {"type": "cdk:asset-manifest", "properties": {"file": "shop.assets.json"}},
			"shop": {"type": "aws:cloudformation:stack", "environment": "aws://111111111111/eu-west-1", "properties": {"templateFile": "shop.template.json"}, "dependencies": ["shop.assets"]}}}`,
	})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{
		"base in eu-west-1: assume arn:aws:iam::111111111111:role/publish-eu-west-1",
		"base in us-east-1: assume arn:aws:iam::111111111111:role/publish-us-east-1",
		"publish-eu-west-1 in eu-west-1: put assets-111111111111-eu-west-1.s3.eu-west-1.amazonaws.com/site",
		"publish-us-east-1 in us-east-1: put assets-111111111111-us-east-1.s3.us-east-1.amazonaws.com/site",
	}, c.did())
}

// stuck are two stacks whose change sets are never worked out.
func stuck() map[string]string {
	return map[string]string{
		"t.json": `{"Resources": {"X": {"Type": "AWS::SNS::Topic"}}}`,
		"manifest.json": `{"version": "55.0.0", "artifacts": {
			"one": {"type": "aws:cloudformation:stack", "environment": "aws://111111111111/eu-west-1", "properties": {"templateFile": "t.json"}},
			"two": {"type": "aws:cloudformation:stack", "environment": "aws://111111111111/eu-west-1", "properties": {"templateFile": "t.json"}}}}`,
	}
}

func TestRun_StackHasATimeOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, began := &cloud{}, time.Now()
		_, err := deployed(t, c, limitsHead+"  timeout: 2h\n  stacks:\n  - {name: one, path: a, timeout: 20m}\n  - {name: two, path: a}\n", stuck())
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackTimeout})
		require.Contains(t, fault.Message(err), "deploy stack one (eu-west-1)")
		require.Contains(t, fault.Message(err), "the stack's time of 20m0s is used up (environments[].stacks[].timeout)")
		require.InDelta(t, 20*time.Minute, time.Since(began), float64(time.Minute))
		require.Equal(t, []string{"base in eu-west-1: change set of one"}, c.did(), "the stack after it is left alone")
		require.Len(t, c.ended, 1, "it counts as one that failed")
		require.Equal(t, "one", c.ended[0].Stack)
		require.False(t, c.ended[0].Succeeded)
	})
}

func TestRun_StackTimeDoesNotStopOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, began := &cloud{}, time.Now()
		_, err := deployed(t, c, limitsHead+"  timeout: 45m\n  concurrency: 2\n  stacks:\n  - {name: one, path: a, timeout: 20m}\n  - {name: two, path: a}\n", stuck())
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackTimeout})
		require.Contains(t, fault.Message(err), "the stack's time of 20m0s is used up")
		require.Contains(t, fault.Message(err), "the environment's time of 45m0s is used up", "the other one goes on to that")
		require.Len(t, c.ended, 2)
		require.InDelta(t, 45*time.Minute, time.Since(began), float64(time.Minute))
	})
}
