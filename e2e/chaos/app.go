package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// podGrace is the grace period of the agent pods in seconds. Argo's agent
// ignores SIGTERM and always uses all of it.
const podGrace = 10

// prepareApp returns a folder with the sample application and those files of
// the CDK library that it loads.
func prepareApp(ctx context.Context, l *lab.Lab, root, dir string) (string, error) {
	full, app := filepath.Join(dir, "full"), filepath.Join(dir, "app")
	source := os.DirFS(filepath.Join(root, "e2e", "testdata", "chaos"))
	for _, target := range []string{full, app} {
		if err := os.CopyFS(target, source); err != nil {
			return "", err
		}
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = full
	install.Env = append(os.Environ(), "npm_config_registry="+l.NpmRegistry(), "npm_config_replace_registry_host=always")
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", install, err, out)
	}
	list := filepath.Join(dir, "loaded")
	if err := synth(ctx, full, "CHAOS_LOADED="+list, "CDK_OUTDIR="+filepath.Join(dir, "out")); err != nil {
		return "", err
	}
	loaded, err := os.ReadFile(list)
	if err != nil {
		return "", err
	}
	if err := copyLoaded(full, app, strings.Split(string(loaded), "\n")); err != nil {
		return "", err
	}
	return app, synth(ctx, app, "CDK_OUTDIR="+filepath.Join(dir, "out")) // nothing is missing
}

// contextJSON is the context that the synth stage gives: what it switches on
// has to be among the files, too.
const contextJSON = `{"aws:cdk:enable-path-metadata": true, "aws:cdk:enable-asset-metadata": true, "aws:cdk:version-reporting": true,
	"aws:cdk:bundling-stacks": ["**"]}`

// synth runs the application in a folder, with names that stand for those of a
// pipeline.
func synth(ctx context.Context, dir string, env ...string) error {
	for name, text := range map[string]string{"name.txt": "chaos", "page.html": "<h1>chaos</h1>"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	command := exec.CommandContext(ctx, "node", "app.js")
	command.Dir = dir
	command.Env = append(append(os.Environ(), "CDK_VALIDATION=false", "CDK_CONTEXT_JSON="+contextJSON, "CDK_CLI_ASM_VERSION=55.0.0",
		"CDK_DEFAULT_ACCOUNT=111111111111", "CDK_DEFAULT_REGION="+region), env...)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("synthesize the sample: %w: %s", err, out)
	}
	return nil
}

// copyLoaded copies the listed files of the library, and the package.json that
// leads to each.
func copyLoaded(full, app string, loaded []string) error {
	names := map[string]bool{}
	for _, file := range loaded {
		name, err := filepath.Rel(full, file)
		if err != nil || !strings.HasPrefix(name, "node_modules/") {
			continue
		}
		names[name] = true
		for folder := filepath.Dir(name); folder != "node_modules"; folder = filepath.Dir(folder) {
			names[filepath.Join(folder, "package.json")] = true
		}
	}
	for name := range names {
		data, err := os.ReadFile(filepath.Join(full, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(app, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(app, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configuration is the pipeline's aphex-config.yaml.
func configuration(name string) []byte {
	mark := func(stage, command, what string) string {
		return fmt.Sprintf(`"sh mark.sh begin %s %s && %s && sh mark.sh end %s %s"`, stage, command, what, stage, command)
	}
	return []byte(`version: "1.0"
build:
  commands:
    - ` + mark("build", "compile", "mkdir -p made && cp page.html made/") + `
    - ` + mark("build", "pack", "mkdir -p artifacts && cp made/page.html artifacts/") + `
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks:
      - name: ` + name + `-data
        path: cdk.json
      - name: ` + name + `-api
        path: cdk.json
    tests:
      commands:
        - ` + mark("test-dev", "smoke", "test -s made/page.html") + `
`)
}

// patched is a generated template whose sidecar reaches the API server at
// another address, and whose pods end sooner.
func patched(template []byte, host string, port int) ([]byte, error) {
	var object map[string]any
	if err := yaml.Unmarshal(template, &object); err != nil {
		return nil, err
	}
	spec, ok := object["spec"].(map[string]any)
	if !ok {
		return nil, errors.New("the template has no spec")
	}
	text, ok := spec["podSpecPatch"].(string)
	if !ok {
		return nil, errors.New("the template has no podSpecPatch")
	}
	var pod map[string]any
	if err := json.Unmarshal([]byte(text), &pod); err != nil {
		return nil, err
	}
	pod["terminationGracePeriodSeconds"] = podGrace
	containers, ok := pod["containers"].([]any)
	if !ok {
		return nil, errors.New("the podSpecPatch has no containers")
	}
	at := slices.IndexFunc(containers, func(c any) bool {
		container, ok := c.(map[string]any)
		return ok && container["name"] == "aphex-executor-plugin"
	})
	if at < 0 {
		return nil, errors.New("the podSpecPatch has no sidecar")
	}
	sidecar := containers[at].(map[string]any) //nolint:forcetypeassert // just found by its type
	env, ok := sidecar["env"].([]any)
	if !ok {
		return nil, errors.New("the sidecar has no environment")
	}
	sidecar["env"] = append(env,
		map[string]any{"name": "KUBERNETES_SERVICE_HOST", "value": host},
		map[string]any{"name": "KUBERNETES_SERVICE_PORT", "value": strconv.Itoa(port)},
	)
	data, err := json.MarshalIndent(pod, "", "  ")
	if err != nil {
		return nil, err
	}
	spec["podSpecPatch"] = string(data)
	return yaml.Marshal(object)
}

// installation points a pipeline at the places of one run.
func installation(aws, marks string) func(*pipeline.Installation) {
	return func(i *pipeline.Installation) {
		i.EndpointURL = aws
		i.WorkerEnv["CHAOS_MARKS"] = marks
	}
}
