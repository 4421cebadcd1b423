package pipeline_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// everyKey gives each key a value that is not its default.
const everyKey = `version: "1.0"
build:
  commands: [npm ci]
  timeout: 45m
  artifacts: dist
  env: {NODE_ENV: production}
  secrets: {NPM_TOKEN: "kubernetes:npm#token"}
  credentials: true
  snapshot: {exclude: ["*.log"], include: [.env]}
tools: [node]
cache: [{paths: [node_modules, ~/.npm], key: [package-lock.json]}]
worker:
  image: registry.example.com/team/node:24.1
  resources: {requests: {cpu: 500m}, limits: {memory: 4Gi}}
argo: {url: "https://argo.example.com"}
selfModification: same-run
notifications:
  - {type: slack, target: "ssm:/shop/slack", events: [failed], environments: [dev]}
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks: [{name: ShopData, path: infra, timeout: 20m, onEmpty: delete}]
    tests: {commands: [npm test], timeout: 2m, reports: [junit.xml]}
    timeout: 2h
    roleArn: arn:aws:iam::111111111111:role/deploy
    externalId: shop
    context: {size: 3}
    requiredContext: [vpc-id]
    onFailedStack: rollback
    concurrency: 4
    importExistingResources: true
x-example: {password: hunter2} # aphex:allow-secret an example
`

// A key that is checked but never read would be ignored in silence.
func TestLoad_EveryKeyHasItsEffect(t *testing.T) {
	t.Parallel()
	config, err := pipeline.Load(pipeline.DefaultFile, []byte(everyKey))
	require.NoError(t, err)
	var walk func(path string, value reflect.Value)
	walk = func(path string, value reflect.Value) {
		require.False(t, value.IsZero(), "%s was not read", path)
		switch {
		case value.Kind() == reflect.Pointer:
			walk(path, value.Elem())
		case value.Kind() == reflect.Slice:
			for n := range value.Len() {
				walk(path, value.Index(n))
			}
		case value.Kind() == reflect.Struct:
			for n := range value.NumField() {
				walk(path+"."+value.Type().Field(n).Name, value.Field(n))
			}
		}
	}
	walk("Config", reflect.ValueOf(config))
	require.Equal(t, []string{"*.log"}, config.Build.Snapshot.Exclude)
	require.Equal(t, []string{".env"}, config.Build.Snapshot.Include)
	require.Equal(t, pipeline.OnFailedStackRollback, config.Environments[0].OnFailedStack)
	require.Equal(t, []pipeline.Stack{{Name: "ShopData", Path: "infra", Timeout: 20 * time.Minute, OnEmpty: pipeline.OnEmptyDelete}}, config.Environments[0].Stacks)
}
