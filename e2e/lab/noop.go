package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// Steps writes a Workflow of that many templates, one after the other. name is
// the beginning of its name; spec is YAML, indented by two blanks; template
// writes the template s<i>.
func Steps(name, spec string, stages int, template func(i int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: %s}\nspec:\n  entrypoint: main\n", name)
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

// NoopConfig is the configuration of NoopPipeline.
const NoopConfig = "version: \"1.0\"\nbuild: {commands: [\"true\"]}\nenvironments:\n" +
	"  - {name: dev, region: eu-west-1, account: \"111111111111\", stacks: [{name: none, path: cdk.json}]}\n"

// NoopPipeline makes a pipeline whose template lends Workflows of NoopStep and
// NoopPod their pods; it is not run itself.
func (l *Lab) NoopPipeline(ctx context.Context, changes ...func(*pipeline.Installation)) (*Pipeline, error) {
	p, err := l.NewPipeline(ctx, "bench", changes...)
	if err != nil {
		return nil, err
	}
	if _, err := p.Push(ctx, gitserver.Change{Write: map[string]string{"aphex-config.yaml": NoopConfig}}); err != nil {
		return nil, err
	}
	return p, p.Apply(ctx, []byte(NoopConfig))
}

// NoopStep is a template that does nothing in the plugin.
func NoopStep(i int) string {
	return fmt.Sprintf("  - name: s%d\n    plugin: {aphex: {stage: noop, pipeline: bench, node: \"{{node.name}}\", topology: none, "+
		"config: aphex-config.yaml, repo: \"http://localhost/none\", commit: none, branch: main, allowOlder: \"false\"}}\n", i)
}

// NoopPod is a template that does nothing in a pod of its own, as the stages of
// the installation's pipeline would.
func NoopPod(i int, inst pipeline.Installation) string {
	return fmt.Sprintf("  - name: s%d\n    container:\n      image: %s\n      imagePullPolicy: %s\n      command: [aphex, task, noop]\n      args: ["+
		"\"--workflow={{workflow.name}}\", \"--workflow-uid={{workflow.uid}}\", \"--namespace={{workflow.namespace}}\", "+
		"--outputs=/var/aphex/outputs, \"--node={{node.name}}\", --pipeline=bench, --topology=none, --repo=http://localhost/none, --commit=none]\n",
		i, inst.Images.Plugin, inst.ImagePullPolicy)
}
