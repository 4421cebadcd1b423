package main

import (
	"fmt"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
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

// containerStep does nothing in a container of the smallest image there is.
func containerStep(i int) string {
	return fmt.Sprintf("  - name: s%d\n    container: {image: %s, imagePullPolicy: IfNotPresent, command: [/bin/argoexec, version]}\n", i, cluster.ExecutorImage)
}

// idleStep does nothing in the plugin, then nothing at all.
func idleStep(i int) string {
	if i == 0 {
		return lab.NoopStep(i)
	}
	return fmt.Sprintf("  - {name: s%d, suspend: {}}\n", i)
}
