package main

import (
	"fmt"
	"strings"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
)

// containerIdentity is what container steps need of a service account; the
// plugin's runs do without.
const containerIdentity = `apiVersion: v1
kind: ServiceAccount
metadata: {name: bench-container}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: bench-container}
rules:
  - {apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bench-container}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: bench-container}
subjects: [{kind: ServiceAccount, name: bench-container}]
`

// workflow writes a Workflow of that many templates, one after the other. spec
// is YAML, indented by two blanks.
func workflow(spec string, template func(i int) string) string {
	var b strings.Builder
	b.WriteString("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: bench-}\nspec:\n  entrypoint: main\n")
	b.WriteString(spec)
	b.WriteString("  templates:\n  - name: main\n    steps:\n")
	for i := range stages {
		fmt.Fprintf(&b, "    - - {name: s%d, template: s%d}\n", i, i)
	}
	for i := range stages {
		b.WriteString(template(i))
	}
	return b.String()
}

// containerStep does nothing in a container of the smallest image there is.
func containerStep(i int) string {
	return fmt.Sprintf("  - name: s%d\n    container: {image: %s, imagePullPolicy: IfNotPresent, command: [/bin/argoexec, version]}\n", i, cluster.ExecutorImage)
}

// pluginStep does nothing in the plugin.
func pluginStep(i int) string {
	return fmt.Sprintf("  - name: s%d\n    plugin: {aphex: {stage: noop, pipeline: bench, node: \"{{node.name}}\", topology: none, "+
		"config: aphex-config.yaml, repo: \"http://localhost/none\", commit: none, branch: main, allowOlder: \"false\"}}\n", i)
}
