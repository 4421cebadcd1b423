package pipeline_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

const minimalInstallation = `pipeline: shop
namespace: team
repoUrl: https://git.example.com/team/shop.git
bucket: team-artifacts
region: eu-west-1
images:
  plugin: aphex/plugin:1.0
  worker: aphex/worker:1.0
`

func TestLoadInstallation_FillsInDefaults(t *testing.T) {
	t.Parallel()
	inst, err := pipeline.LoadInstallation("installation.yaml", []byte(minimalInstallation))
	require.NoError(t, err)
	require.Equal(t, pipeline.Installation{
		Pipeline: "shop", Namespace: "team", ControllerNamespace: "argo", Runner: "plugin", Nudge: "on",
		RepoURL: "https://git.example.com/team/shop.git", Branch: "main", ConfigPath: "aphex-config.yaml",
		Bucket: "team-artifacts", Region: "eu-west-1",
		Images:          pipeline.Images{Plugin: "aphex/plugin:1.0", Worker: "aphex/worker:1.0"},
		ImagePullPolicy: "IfNotPresent", GitSecret: "aphex-git", AWS: pipeline.AWSIdentity{Audience: "sts.amazonaws.com"},
		WorkerResources: pipeline.Resources{
			Requests: map[string]string{"cpu": "250m", "memory": "512Mi"}, Limits: map[string]string{"memory": "2Gi"},
		},
		ServiceAccount: "aphex-workflow", TTLDays: 14,
	}, inst)
}

func TestLoadInstallation_ReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := pipeline.LoadInstallation("inst.yaml", []byte(`pipeline: Shop
namespace: argo
repoUrl: ftp://git.example.com/x
branch: "a b"
configPath: ../x.yaml
bucket: UPPER
bucketPrefix: /abs
region: Frankfurt
endpointUrl: localhost:4566
images:
  plugin: "a b"
runner: docker
imagePullPolicy: Sometimes
imagePullSecrets: [ok, "not ok"]
gitSecret: "{{x}}"
aws:
  projectToken: true
workerResources:
  requests: {cpu: lots, gpu: "1"}
workerEnv: {A_B: ok, AWS_PROFILE: x, "a b": c, Q: "\"", P: "http://u:p@proxy:1"}
argoUrl: https://argo.example.com/?q=1
serviceAccount: UP
ttlDays: 900
artifactRepository: {configMap: UP, key: "{{x}}"}
nudge: no
`))
	invalid, ok := errors.AsType[*pipeline.InvalidError](err)
	require.True(t, ok, "%v", err)
	found := map[string]string{}
	for _, f := range invalid.Findings {
		require.Equal(t, "inst.yaml", f.File)
		found[f.Path] = fmt.Sprintf("%d:%d", f.Line, f.Column)
	}
	require.Equal(t, map[string]string{
		"pipeline": "1:11", "namespace": "2:12", "repoUrl": "3:10", "branch": "4:9", "configPath": "5:13",
		"bucket": "6:9", "bucketPrefix": "7:15", "region": "8:9", "endpointUrl": "9:14",
		"images.plugin": "11:11", "images.worker": "11:3", "runner": "12:9", "imagePullPolicy": "13:18", "imagePullSecrets[1]": "14:24",
		"gitSecret": "15:12", "aws.roleArn": "17:3",
		"workerResources.requests.cpu": "19:19", "workerResources.requests.gpu": "19:30",
		"workerEnv.AWS_PROFILE": "20:35", "workerEnv.a b": "20:45", "workerEnv.Q": "20:51", "workerEnv.P": "20:60",
		"argoUrl": "21:10", "serviceAccount": "22:17", "ttlDays": "23:10",
		"artifactRepository.configMap": "24:33", "artifactRepository.key": "24:42", "nudge": "25:8",
	}, found)
}

func TestLoadInstallation_Refuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ data, want string }{
		"nothing":                   {"", "is empty"},
		"a comment":                 {"# nothing\n", "is empty"},
		"a list":                    {"[]", "not a mapping"},
		"broken YAML":               {"a: b\nc: [", "inst.yaml:2:1: is not valid YAML"},
		"two documents":             {minimalInstallation + "---\n" + minimalInstallation, "more than one"},
		"an unknown key":            {minimalInstallation + "repository: x\n", "repository: is not a known key: pipeline, namespace"},
		"an unknown nested key":     {minimalInstallation + "aws: {role: x}\n", "aws.role: is not a known key: roleArn, audience, projectToken"},
		"a duplicate key":           {minimalInstallation + "region: eu-west-1\n", "already defined"},
		"a merge":                   {minimalInstallation + "<<: {branch: x}\n", "<<: is not a known key"},
		"a word for a number":       {minimalInstallation + "ttlDays: soon\n", "inst.yaml:9:1: cannot unmarshal"},
		"a password":                {strings.Replace(minimalInstallation, "https://", "https://u:hunter2@", 1), "gitSecret"},
		"a token":                   {strings.Replace(minimalInstallation, "https://", "https://hunter2@", 1), "gitSecret"},
		"a password in a bad URL":   {strings.Replace(minimalInstallation, "https://", "https://u:hunter2%zz@", 1), "is not a URL"},
		"a limit below its request": {minimalInstallation + "workerResources: {requests: {cpu: 2}, limits: {cpu: 500m}}\n", `"500m" is less than the request of "2"`},
		"a field of a secret":       {minimalInstallation + "buildSecrets: [\"ssm:/x#y\"]\n", "a reference without a field"},
		"a secret of another kind":  {minimalInstallation + "buildSecrets: [vault:x]\n", "secretsmanager:shop/npm, ssm:/shop/npm-token or kubernetes:npm"},
		"a secret twice":            {minimalInstallation + "buildSecrets: [ssm:/x, ssm:/x]\n", "buildSecrets[1]: \"ssm:/x\" stands twice"},
		"an account's token":        {minimalInstallation + "buildSecrets: [kubernetes:aphex-executor-plugin.service-account-token]\n", "is the token of a service account"},
		"a channel's reference":     {minimalInstallation + "channelSecrets: [\"kubernetes:slack\"]\n", "the name of a Secret, such as shop-slack"},
		"a channel's secret twice":  {minimalInstallation + "channelSecrets: [slack, slack]\n", "channelSecrets[1]: \"slack\" stands twice"},
		"a token for a channel":     {minimalInstallation + "channelSecrets: [aphex-workflow.service-account-token]\n", "which is not for channels"},
		"a long pipeline name":      {strings.Replace(minimalInstallation, "pipeline: shop", "pipeline: "+strings.Repeat("x", 41), 1), "at most 40"},
		"its controller's own":      {minimalInstallation + "controllerNamespace: team\n", "namespace of Argo's controller"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inst, err := pipeline.LoadInstallation("inst.yaml", []byte(tt.data))
			_, ok := errors.AsType[*pipeline.InvalidError](err)
			require.True(t, ok, "%v", err)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "hunter2")
			require.Zero(t, inst)
		})
	}
}

func TestLoadInstallation_ArtifactRepositoryHasThePipelinesKey(t *testing.T) {
	t.Parallel()
	inst, err := pipeline.LoadInstallation("inst.yaml", []byte(minimalInstallation+"artifactRepository: {configMap: artifacts}\n"))
	require.NoError(t, err)
	require.Equal(t, pipeline.ArtifactRepository{ConfigMap: "artifacts", Key: "shop"}, inst.ArtifactRepository)
	_, err = pipeline.LoadInstallation("inst.yaml", []byte(minimalInstallation+"artifactRepository: {key: shop}\n"))
	require.ErrorContains(t, err, "artifactRepository.configMap")
}

func TestLoadInstallation_AcceptsSSHUser(t *testing.T) {
	t.Parallel()
	_, err := pipeline.LoadInstallation("inst.yaml", []byte(strings.Replace(minimalInstallation, "https://", "ssh://git@", 1)))
	require.NoError(t, err)
}

func TestInstallation_ConfigOverrides(t *testing.T) {
	t.Parallel()
	inst, err := pipeline.LoadInstallation("inst.yaml", []byte(minimalInstallation+"argoUrl: https://a.example.com\n"))
	require.NoError(t, err)
	require.Equal(t, inst, inst.WithConfig(&pipeline.Config{}))

	got := inst.WithConfig(&pipeline.Config{
		Worker: pipeline.Worker{Image: "team/tools:1", Resources: pipeline.Resources{Limits: map[string]string{"memory": "256Mi", "cpu": "1"}}},
		Argo:   pipeline.Argo{URL: "https://b.example.com"},
	})
	require.NoError(t, got.Validate())
	require.Equal(t, "team/tools:1", got.Images.Worker)
	require.Equal(t, "https://b.example.com", got.ArgoURL)
	// The small limit takes the default's larger request along.
	require.Equal(t, pipeline.Resources{
		Requests: map[string]string{"cpu": "250m", "memory": "256Mi"}, Limits: map[string]string{"memory": "256Mi", "cpu": "1"},
	}, got.WorkerResources)

	got = inst.WithConfig(&pipeline.Config{Worker: pipeline.Worker{Resources: pipeline.Resources{Requests: map[string]string{"memory": "4Gi"}}}})
	require.NoError(t, got.Validate())
	require.Equal(t, map[string]string{"memory": "4Gi"}, got.WorkerResources.Limits)
	require.Equal(t, "2Gi", inst.WorkerResources.Limits["memory"], "the installation itself is not changed")
}

// Every key of the file is known to the reader, and no other.
func TestLoadInstallation_KnowsEveryField(t *testing.T) {
	t.Parallel()
	data, err := yaml.Marshal(fill(reflect.TypeFor[pipeline.Installation]()).Interface())
	require.NoError(t, err)
	_, err = pipeline.LoadInstallation("inst.yaml", data)
	require.NotContains(t, fmt.Sprint(err), "known key")
	_, err = pipeline.LoadInstallation("inst.yaml", append(data, "x: y\n"...))
	require.ErrorContains(t, err, "x: is not a known key")
	_, known, _ := strings.Cut(err.Error(), "known key: ")
	require.Len(t, strings.Split(known, ", "), reflect.TypeFor[pipeline.Installation]().NumField())
}

// fill returns a value of the type without any empty field.
func fill(typ reflect.Type) reflect.Value {
	value := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.Struct:
		for n := range typ.NumField() {
			value.Field(n).Set(fill(typ.Field(n).Type))
		}
	case reflect.Slice:
		value.Set(reflect.Append(value, fill(typ.Elem())))
	case reflect.Map:
		value.Set(reflect.MakeMap(typ))
		value.SetMapIndex(fill(typ.Key()), fill(typ.Elem()))
	case reflect.String:
		value.SetString("x")
	case reflect.Int:
		value.SetInt(1)
	case reflect.Bool:
		value.SetBool(true)
	default:
		panic("no value for " + typ.String())
	}
	return value
}

func TestLoadInstallation_RoundTrip(t *testing.T) {
	t.Parallel()
	inst, err := pipeline.LoadInstallation("inst.yaml", []byte(minimalInstallation))
	require.NoError(t, err)
	inst.WorkerEnv = map[string]string{"NO_PROXY": ".svc,10.0.0.0/8", "on": "off", "N": "012"}
	data, err := pipeline.MarshalInstallation(inst)
	require.NoError(t, err)
	again, err := pipeline.LoadInstallation("inst.yaml", data)
	require.NoError(t, err)
	require.Equal(t, inst, again)
}

// Whatever passes holds nothing that could end a quoted scalar or start one
// of Argo's tags.
func TestInstallation_AcceptedValuesAreHarmless(t *testing.T) {
	t.Parallel()
	inst, err := pipeline.LoadInstallation("inst.yaml", []byte(minimalInstallation))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`(https://)?[A-Za-z0-9._/:@{}"'\\ \n-]{1,12}`)).Draw(t, "value")
		changed := inst
		fields := []*string{
			&changed.Pipeline, &changed.Namespace, &changed.Runner, &changed.RepoURL, &changed.Branch, &changed.ConfigPath, &changed.Bucket,
			&changed.BucketPrefix, &changed.Region, &changed.EndpointURL, &changed.Images.Plugin, &changed.Images.Worker,
			&changed.ImagePullPolicy, &changed.GitSecret, &changed.AWS.RoleARN, &changed.AWS.Audience, &changed.ArgoURL, &changed.ServiceAccount,
		}
		*fields[rapid.IntRange(0, len(fields)-1).Draw(t, "field")] = value
		if changed.Validate() == nil {
			require.NotContains(t, value, "{{")
			require.False(t, strings.ContainsAny(value, "\"'\\{} \t\r\n\x00"), "%q", value)
		}
	})
}
