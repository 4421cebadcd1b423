package assembly

import (
	"encoding/json"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	typeStack    = "aws:cloudformation:stack"
	typeAssets   = "cdk:asset-manifest"
	typeAssembly = "cdk:cloud-assembly"
)

// unit is one manifest while it is being read.
type unit struct {
	loader    *loader
	dir       string
	manifest  string
	strict    bool
	artifacts map[string]artifactJSON
	stacks    map[string]*Stack
	assets    map[string]*AssetManifest
}

// sortArtifacts returns the artifact ids, dependencies first and otherwise by
// name, so that equal manifests give equal results.
func sortArtifacts(name string, m manifestJSON) ([]string, error) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var order []string
	var visit func(id string) error
	visit = func(id string) error {
		switch state[id] {
		case done:
			return nil
		case visiting:
			return invalid("file %s: artifact %q depends on itself", name, id)
		}
		state[id] = visiting
		for _, dependency := range m.Artifacts[id].Dependencies {
			if _, ok := m.Artifacts[dependency]; !ok {
				return invalid("file %s: artifact %q depends on %q, which does not exist", name, id, dependency)
			}
			if err := visit(dependency); err != nil {
				return err
			}
		}
		state[id] = done
		order = append(order, id)
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(m.Artifacts)) {
		if err := visit(id); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func (u *unit) add(id string, depth int) error {
	artifact := u.artifacts[id]
	switch artifact.Type {
	case typeAssets:
		return u.addAssets(id, artifact)
	case typeStack:
		return u.addStack(id, artifact)
	case typeAssembly:
		var p nestedJSON
		if err := u.properties(id, artifact, &p); err != nil {
			return err
		}
		dir, err := u.path(p.DirectoryName)
		if err != nil {
			return err
		}
		return u.loader.load(dir, depth+1)
	default:
		return nil
	}
}

// path turns a path relative to the manifest's folder into one relative to
// the assembly's.
func (u *unit) path(name string) (string, error) {
	if name == "" {
		return "", invalid("file %s: a path is empty", u.manifest)
	}
	if path.IsAbs(name) || filepath.IsAbs(name) {
		return "", invalid("file %s: path %q is absolute; the app must stage its assets (do not set aws:cdk:disable-asset-staging)", u.manifest, name)
	}
	joined := path.Join(u.dir, name)
	if !filepath.IsLocal(filepath.FromSlash(joined)) {
		return "", invalid("file %s: path %q leads outside the assembly", u.manifest, name)
	}
	return joined, nil
}

func (u *unit) properties(id string, artifact artifactJSON, v any) error {
	if len(artifact.Properties) == 0 {
		return invalid("file %s: artifact %q has no properties", u.manifest, id)
	}
	if err := json.Unmarshal(artifact.Properties, v); err != nil {
		return invalid("file %s: artifact %q: %w", u.manifest, id, err)
	}
	return nil
}

func (u *unit) addStack(id string, artifact artifactJSON) error {
	var p stackJSON
	if err := u.properties(id, artifact, &p); err != nil {
		return err
	}
	if err := u.refuseUnknown("stack "+id, artifact.Properties, knownStackProperties()); err != nil {
		return err
	}
	if firstOf(p.StackName, id) == "" {
		return invalid("file %s: a stack has neither an id nor a name", u.manifest)
	}
	template, err := u.path(p.TemplateFile)
	if err != nil {
		return err
	}
	account, region, err := u.environment(id, artifact.Environment)
	if err != nil {
		return err
	}
	if strings.Contains(p.TemplateAssetURL, partitionPlaceholder) {
		return invalid("file %s: stack %q: stackTemplateAssetObjectUrl %q must not hold %s", u.manifest, id, p.TemplateAssetURL, partitionPlaceholder)
	}
	s := &Stack{
		ID:                    id,
		HierarchicalID:        firstOf(artifact.DisplayName, id, p.StackName),
		Name:                  firstOf(p.StackName, id),
		Account:               account,
		Region:                region,
		TemplateFile:          template,
		Tags:                  p.Tags,
		TerminationProtection: p.TerminationProtection,
		NotificationARNs:      p.NotificationARNs,
		ExecutionRoleARN:      p.ExecutionRoleARN,
		TemplateAssetURL:      p.TemplateAssetURL,
		Bootstrap:             Bootstrap{Version: p.RequiresBootstrap, Parameter: p.BootstrapVersionParam},
	}
	s.DeployRole = role(p.AssumeRoleARN, p.AssumeRoleExternalID, p.AssumeRoleOptions, s.Bootstrap)
	if l := p.LookupRole; l != nil {
		s.LookupRole = role(l.ARN, l.ExternalID, l.Options, Bootstrap{Version: l.RequiresBootstrap, Parameter: l.BootstrapVersionParam})
	}
	if err := u.readMetadata(s, artifact); err != nil {
		return err
	}
	for _, dependency := range artifact.Dependencies {
		if other, ok := u.stacks[dependency]; ok {
			s.Dependencies = append(s.Dependencies, other)
		}
		if assets, ok := u.assets[dependency]; ok {
			s.Assets = append(s.Assets, assets)
		}
	}
	u.stacks[id] = s
	u.loader.assembly.Stacks = append(u.loader.assembly.Stacks, s)
	return nil
}

func role(arn, externalID string, options map[string]any, bootstrap Bootstrap) *Role {
	if arn == "" {
		return nil
	}
	return &Role{ARN: arn, ExternalID: externalID, Options: options, Bootstrap: bootstrap}
}

// environment splits aws://account/region; unknown parts come back empty.
func (u *unit) environment(id, s string) (account, region string, err error) {
	if s == "" {
		return "", "", nil
	}
	rest, ok := strings.CutPrefix(s, "aws://")
	account, region, found := strings.Cut(rest, "/")
	if !ok || !found || account == "" || region == "" || strings.Contains(region, "/") {
		return "", "", invalid("file %s: stack %q: environment %q is not of the form aws://<account>/<region>", u.manifest, id, s)
	}
	if account == "unknown-account" {
		account = ""
	}
	if region == "unknown-region" {
		region = ""
	}
	return account, region, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
