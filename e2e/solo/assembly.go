package solo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Stack is a stack of an app, as the CDK's default synthesizer describes it.
type Stack struct {
	Name, Template string
	// Account is where it goes; empty for that of the environment.
	Account string
	// Assets are the contents of file assets; every second one is a folder.
	Assets []string
	// After are the stacks it depends on.
	After []string
}

// Waiting is a template that is in progress until its handle is signalled; its
// output tells versions apart.
func Waiting(version string) string {
	return fmt.Sprintf(`{"Resources": {
	"Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
	"Wait": {"Type": "AWS::CloudFormation::WaitCondition", "DependsOn": "Handle", "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "600", "Count": 1}}},
	"Outputs": {"Version": {"Value": %q}}}`, version)
}

// roles and bucket are those of the modern bootstrap.
const (
	roleARN    = "arn:${AWS::Partition}:iam::%s:role/cdk-hnb659fds-%s-role-%s-%s"
	bucketName = "cdk-hnb659fds-assets-%s-%s"
	versionKey = "/cdk-bootstrap/hnb659fds/version"
	needs      = 6
)

// Assembly writes the cloud assembly of an app with stacks for an environment.
func Assembly(dir, account, region string, stacks []Stack) error {
	artifacts := map[string]any{}
	for _, s := range stacks {
		if s.Account == "" {
			s.Account = account
		}
		template, files, err := s.write(dir, region)
		if err != nil {
			return err
		}
		artifacts[s.Name+".assets"] = map[string]any{"type": "cdk:asset-manifest", "properties": map[string]any{
			"file": files, "requiresBootstrapStackVersion": needs, "bootstrapStackVersionSsmParameter": versionKey,
		}}
		artifacts[s.Name] = map[string]any{
			"type": "aws:cloudformation:stack", "environment": "aws://" + s.Account + "/" + region, "displayName": s.Name,
			"dependencies": append([]string{s.Name + ".assets"}, s.After...),
			"properties": map[string]any{
				"templateFile": s.Name + ".template.json", "stackName": s.Name, "validateOnSynth": false,
				"assumeRoleArn":                  fmt.Sprintf(roleARN, s.Account, "deploy", s.Account, region),
				"cloudFormationExecutionRoleArn": fmt.Sprintf(roleARN, s.Account, "cfn-exec", s.Account, region),
				"stackTemplateAssetObjectUrl":    "s3://" + fmt.Sprintf(bucketName, s.Account, region) + "/" + template + ".json",
				"requiresBootstrapStackVersion":  needs, "bootstrapStackVersionSsmParameter": versionKey,
				"additionalDependencies": []string{s.Name + ".assets"},
			},
		}
	}
	return writeJSON(dir, "manifest.json", map[string]any{"version": "48.0.0", "artifacts": artifacts})
}

// write writes template and assets of a stack, and returns the digest of the
// template and the name of the asset manifest.
func (s Stack) write(dir, region string) (template, manifest string, err error) {
	destination := func(id, extension string) map[string]any {
		return map[string]any{"current": map[string]any{
			"bucketName": fmt.Sprintf(bucketName, s.Account, region), "objectKey": id + extension, "region": region,
			"assumeRoleArn": fmt.Sprintf(roleARN, s.Account, "file-publishing", s.Account, region),
		}}
	}
	name := s.Name + ".template.json"
	template = digest(s.Template)
	files := map[string]any{template: map[string]any{
		"displayName": s.Name + " Template", "source": map[string]any{"path": name, "packaging": "file"}, "destinations": destination(template, ".json"),
	}}
	errs := []error{os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, name), []byte(s.Template), 0o600)}
	for i, content := range s.Assets {
		id := digest(content)
		path, packaging, extension := "asset."+id+".txt", "file", ".txt"
		if i%2 == 1 {
			path, packaging, extension = "asset."+id, "zip", ".zip"
			errs = append(errs, os.MkdirAll(filepath.Join(dir, path), 0o750), os.WriteFile(filepath.Join(dir, path, "index.py"), []byte(content), 0o600))
		} else {
			errs = append(errs, os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600))
		}
		files[id] = map[string]any{"displayName": fmt.Sprintf("%s Asset %d", s.Name, i), "source": map[string]any{"path": path, "packaging": packaging}, "destinations": destination(id, extension)}
	}
	manifest = s.Name + ".assets.json"
	errs = append(errs, writeJSON(dir, manifest, map[string]any{"version": "48.0.0", "files": files, "dockerImages": map[string]any{}}))
	return template, manifest, errors.Join(errs...)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func writeJSON(dir, name string, value any) error {
	data, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), data, 0o600)
}

// Config is the configuration of a pipeline whose environments, by name, are
// these accounts, each with the stacks.
func Config(region string, concurrency int, environments map[string]string, stacks map[string][]string) string {
	var out strings.Builder
	out.WriteString("version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n")
	for name, account := range environments {
		fmt.Fprintf(&out, "- name: %s\n  region: %s\n  account: %q\n", name, region, account)
		if concurrency > 1 {
			fmt.Fprintf(&out, "  concurrency: %d\n", concurrency)
		}
		out.WriteString("  stacks:\n")
		for _, stack := range stacks[name] {
			fmt.Fprintf(&out, "  - {name: %s, path: infra}\n", stack)
		}
	}
	return out.String()
}
