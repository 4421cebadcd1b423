package manifests_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	argoplugin "github.com/argoproj/argo-workflows/v3/workflow/util/plugins"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/plugin/check"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

var update = flag.Bool("update", false, "rewrite the generated files")

// object is one decoded document with the file it stands in.
type object struct {
	file, kind, name string
	data             []byte
}

// objects returns every object under a folder.
func objects(t *testing.T, dir string) []object {
	t.Helper()
	var list []object
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			require.NoError(t, err, file)
			var head struct {
				APIVersion, Kind string
				Metadata         struct{ Name string }
			}
			require.NoError(t, yaml.Unmarshal(document, &head), file)
			if head.Kind != "" && head.Kind != "Kustomization" {
				list = append(list, object{file: file, kind: head.Kind, name: head.Metadata.Name, data: document})
			}
		}
	})
	require.NoError(t, err)
	require.NotEmpty(t, list)
	return list
}

// find decodes the object of that kind and name strictly into into.
func find(t *testing.T, list []object, kind, name string, into any) {
	t.Helper()
	at := slices.IndexFunc(list, func(o object) bool { return o.kind == kind && o.name == name })
	require.GreaterOrEqual(t, at, 0, "%s %s", kind, name)
	require.NoError(t, yaml.UnmarshalStrict(list[at].data, into), "%s %s", kind, name)
}

func TestKustomizations_ListWhatIsThere(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"base", "container", "controller", "policies", "reconcile", "samples/shop"} {
		data, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		require.NoError(t, err)
		var k struct {
			Resources          []string
			ConfigMapGenerator []struct{ Files []string }
		}
		require.NoError(t, yaml.Unmarshal(data, &k))
		listed := k.Resources
		for _, generator := range k.ConfigMapGenerator {
			listed = append(listed, generator.Files...)
		}
		listed = append(listed, "kustomization.yaml", pipeline.DefaultFile)
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		require.NoError(t, err)
		for _, file := range files {
			require.Contains(t, listed, filepath.Base(file), dir)
		}
		for _, resource := range k.Resources {
			require.FileExists(t, kustomizationOrFile(filepath.Join(dir, resource)))
		}
	}
}

func kustomizationOrFile(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, "kustomization.yaml")
	}
	return path
}

// The base names no namespace, so that any can be given.
func TestBase_HasNoNamespace(t *testing.T) {
	t.Parallel()
	for _, o := range append(objects(t, "base"), objects(t, "reconcile")...) {
		require.NotContains(t, string(o.data), "namespace:", o.file)
	}
}

// Argo itself reads the plugin's ConfigMap.
func TestBase_Plugin(t *testing.T) {
	t.Parallel()
	var config corev1.ConfigMap
	find(t, objects(t, "base"), "ConfigMap", "aphex-executor-plugin", &config)
	plugin, err := argoplugin.FromConfigMap(&config)
	require.NoError(t, err)
	require.Equal(t, "ExecutorPlugin", plugin.Kind)
	// Argo looks for the service account <name>-executor-plugin.
	require.Equal(t, "aphex", plugin.Name)
	require.True(t, plugin.Spec.Sidecar.AutomountServiceAccountToken)

	c := plugin.Spec.Sidecar.Container
	require.Equal(t, "aphex-executor-plugin", c.Name)
	require.Equal(t, []string{"aphex", "plugin"}, c.Command)
	require.Equal(t, []string{"aphex", "plugin", "--wait-ready"}, c.Lifecycle.PostStart.Exec.Command)
	// The plugin listens on loopback, where the kubelet cannot ask.
	for probe, command := range map[*corev1.Probe]string{c.LivenessProbe: "--probe=live", c.ReadinessProbe: "--probe=ready"} {
		require.Equal(t, []string{"aphex", "plugin", command}, probe.Exec.Command)
	}
	patience := c.LivenessProbe.PeriodSeconds * c.LivenessProbe.FailureThreshold
	require.GreaterOrEqual(t, patience, int32(120), "a busy node must not cost a stage its process")
	require.Equal(t, []corev1.ContainerPort{{ContainerPort: 4355}}, c.Ports)
	require.Empty(t, c.VolumeMounts, "volumes that only pipelines define would break every other agent pod")
	require.Equal(t, int64(8737), *c.SecurityContext.RunAsUser)
	require.True(t, *c.SecurityContext.RunAsNonRoot)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
}

func TestBase_ServiceAccountsAndTheirTokens(t *testing.T) {
	t.Parallel()
	list := objects(t, "base")
	for _, name := range []string{pipeline.DefaultServiceAccount, "aphex-executor-plugin"} {
		var account corev1.ServiceAccount
		find(t, list, "ServiceAccount", name, &account)
		require.False(t, *account.AutomountServiceAccountToken)
		var token corev1.Secret
		find(t, list, "Secret", name+".service-account-token", &token)
		require.Equal(t, corev1.SecretTypeServiceAccountToken, token.Type)
		require.Equal(t, name, token.Annotations[corev1.ServiceAccountNameKey])
		var binding rbacv1.RoleBinding
		find(t, list, "RoleBinding", name, &binding)
		require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}, binding.RoleRef)
		require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: name}}, binding.Subjects)
	}
}

// The rights are the interface with whoever reviews an installation: a new one
// is a decision.
func TestBase_Rights(t *testing.T) {
	t.Parallel()
	tests := map[string]map[string]string{
		"aphex-workflow": {"workflowtasksets": "list watch", "workflowtasksets/status": "patch"},
		"aphex-executor-plugin": {
			"workflows": "get watch patch create", "workflowtasksets": "get watch",
			"workflowtasksets/status": "patch", "workflowtemplates": "get create patch", "configmaps": "get create update patch",
		},
		"aphex-workflow-containers": {"workflowtaskresults": "create patch"},
		"aphex-reconcile":           {"workflows": "get list patch", "pods": "get list delete", "configmaps": "get list delete"},
	}
	list := slices.Concat(objects(t, "base"), objects(t, "container"), objects(t, "reconcile"))
	for name, want := range tests {
		var role rbacv1.Role
		find(t, list, "Role", name, &role)
		got := map[string]string{}
		for _, rule := range role.Rules {
			require.Len(t, rule.APIGroups, 1)
			for _, resource := range rule.Resources {
				got[resource] = strings.Join(rule.Verbs, " ")
			}
		}
		require.Equal(t, want, got)
	}
}

// `aphex plugin --check` asks for exactly the rights that are given.
func TestBase_RightsAreThoseThatAreChecked(t *testing.T) {
	t.Parallel()
	var role rbacv1.Role
	find(t, objects(t, "base"), "Role", "aphex-executor-plugin", &role)
	var given []kube.Right
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				given = append(given, kube.Right{Group: rule.APIGroups[0], Resource: resource, Verb: verb})
			}
		}
	}
	require.ElementsMatch(t, given, check.Rights())
}

func TestPolicies_AreBoundAndSpeakOfOneAccount(t *testing.T) {
	t.Parallel()
	list := objects(t, "policies")
	policies := 0
	for _, o := range list {
		if o.kind != "ValidatingAdmissionPolicy" {
			continue
		}
		policies++
		var policy admissionv1.ValidatingAdmissionPolicy
		find(t, list, o.kind, o.name, &policy)
		require.Equal(t, admissionv1.Fail, *policy.Spec.FailurePolicy)
		account := `":aphex-executor-plugin"`
		if strings.HasPrefix(o.name, "aphex-reconcile") {
			account = `":aphex-reconcile"`
		}
		require.Contains(t, policy.Spec.MatchConditions[0].Expression, account)
		for _, validation := range policy.Spec.Validations {
			require.NotEmpty(t, validation.Message)
			// As with RBAC: the plugin tells "not permitted" from "failed" by it.
			require.Equal(t, metav1.StatusReasonForbidden, *validation.Reason)
		}
		var binding admissionv1.ValidatingAdmissionPolicyBinding
		find(t, list, "ValidatingAdmissionPolicyBinding", o.name, &binding)
		require.Equal(t, o.name, binding.Spec.PolicyName)
		require.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, binding.Spec.ValidationActions)
	}
	require.Equal(t, 5, policies)
	workflows := slices.IndexFunc(list, func(o object) bool { return o.name == "aphex-plugin-workflows" })
	for _, name := range []string{pipeline.LabelPipeline, pipeline.AnnotationReplaces, pipeline.AnnotationSucceeds} {
		require.Contains(t, string(list[workflows].data), `"`+name+`"`)
	}
	closer := slices.IndexFunc(list, func(o object) bool { return o.name == "aphex-reconcile-workflows" })
	for _, name := range []string{pipeline.LabelReason, pipeline.LabelRecorded} {
		require.Contains(t, string(list[closer].data), `"`+name+`"`)
	}
}

// One pass at a time, ended before the next begins, as nobody in particular.
func TestReconcile_CronJob(t *testing.T) {
	t.Parallel()
	list := objects(t, "reconcile")
	var job batchv1.CronJob
	find(t, list, "CronJob", "aphex-reconcile", &job)
	require.Equal(t, batchv1.ForbidConcurrent, job.Spec.ConcurrencyPolicy)
	require.Less(t, *job.Spec.JobTemplate.Spec.ActiveDeadlineSeconds, int64(120))
	pod := job.Spec.JobTemplate.Spec.Template.Spec
	require.Equal(t, "aphex-reconcile", pod.ServiceAccountName)
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.Equal(t, []string{"aphex", "reconcile"}, c.Command[:2])
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	var binding rbacv1.RoleBinding
	find(t, list, "RoleBinding", "aphex-reconcile", &binding)
	require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "aphex-reconcile"}}, binding.Subjects)
}

// The sample's template is what the generator makes of the sample.
func TestSample_IsGenerated(t *testing.T) {
	t.Parallel()
	const dir = "samples/shop"
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return data
	}
	cfg, err := pipeline.Load(pipeline.DefaultFile, read(pipeline.DefaultFile))
	require.NoError(t, err)
	inst, err := pipeline.LoadInstallation(pipeline.InstallationKey, read(pipeline.InstallationKey))
	require.NoError(t, err)
	want, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	const file = "workflowtemplate.yaml"
	if *update {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), want, 0o600))
	}
	require.Equal(t, string(want), string(read(file)), "run: go test ./manifests -update")

	var kustomization struct {
		Namespace          string
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		}
	}
	require.NoError(t, yaml.Unmarshal(read("kustomization.yaml"), &kustomization))
	require.Equal(t, inst.Namespace, kustomization.Namespace)
	require.Equal(t, pipeline.InstallationName(inst.Pipeline), kustomization.ConfigMapGenerator[0].Name)
	require.Equal(t, []string{pipeline.InstallationKey}, kustomization.ConfigMapGenerator[0].Files)
}
