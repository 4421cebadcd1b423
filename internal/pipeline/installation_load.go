package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// installationKeys returns the keys of each mapping of an installation, by the
// mapping's path. A test compares them with the struct tags.
func installationKeys() map[string][]string {
	return map[string][]string{
		"": {
			"pipeline", "namespace", "controllerNamespace", "runner", "nudge", "repoUrl", "branch", "configPath", "bucket",
			"bucketPrefix", "region", "endpointUrl", "images", "imagePullPolicy", "imagePullSecrets", "gitSecret", "buildSecrets",
			"channelSecrets", "aws", "workerResources", "workerEnv", "artifactRepository", "argoUrl", "serviceAccount", "ttlDays",
		},
		"images":             {"plugin", "worker", "builder", "rootless"},
		"aws":                {"roleArn", "audience", "projectToken"},
		"artifactRepository": {"configMap", "key"},
		"workerResources":    {"requests", "limits"},
	}
}

// LoadInstallation reads an installation, fills in the defaults and checks it.
// name is what findings call the file.
//
// Errors: *InvalidError with every finding and its position; unknown keys are
// findings.
func LoadInstallation(name string, data []byte) (Installation, error) {
	var inst Installation
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return inst, invalidFile(name, errors.New("is empty"))
		}
		return inst, invalidFile(name, fmt.Errorf("is not valid YAML: %w", err))
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return inst, invalidFile(name, errors.New("holds more than one YAML document: keep one"))
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return inst, invalidFile(name, errors.New("is not a mapping: write keys such as pipeline: shop and namespace: ci"))
	}
	walk := &installationWalk{file: name, positions: map[string]*yaml.Node{}}
	walk.mapping("", root)
	if len(walk.findings) > 0 {
		return inst, &InvalidError{Findings: walk.findings}
	}
	if err := root.Decode(&inst); err != nil {
		return Installation{}, invalidFile(name, err)
	}
	inst = inst.WithDefaults()
	if invalid, ok := errors.AsType[*InvalidError](inst.Validate()); ok {
		for n := range invalid.Findings {
			walk.locate(&invalid.Findings[n], root)
		}
		return Installation{}, invalid
	}
	return inst, nil
}

// MarshalInstallation returns inst as LoadInstallation reads it.
func MarshalInstallation(inst Installation) ([]byte, error) {
	data, err := yaml.Marshal(inst)
	if err != nil {
		return nil, fmt.Errorf("encode installation of %s: %w", inst.Pipeline, err)
	}
	return data, nil
}

// invalidFile makes findings of what the YAML library says of a file.
func invalidFile(name string, err error) error {
	messages := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		messages = typed.Errors
	}
	position := regexp.MustCompile(`(?:yaml: )?line ([0-9]+): `)
	invalid := &InvalidError{}
	for _, message := range messages {
		finding := Finding{File: name, Line: 1, Column: 1, Message: message}
		if m := position.FindStringSubmatch(message); m != nil {
			if line, err := strconv.Atoi(m[1]); err == nil {
				finding.Line = line
			}
			finding.Message = strings.Replace(message, m[0], "", 1)
		}
		invalid.Findings = append(invalid.Findings, finding)
	}
	return invalid
}

// installationWalk remembers where each value stands and reports keys nobody
// knows.
type installationWalk struct {
	file      string
	positions map[string]*yaml.Node
	findings  []Finding
}

func (w *installationWalk) mapping(path string, node *yaml.Node) {
	known, fixed := installationKeys()[path]
	for n := 0; n+1 < len(node.Content); n += 2 {
		key, value := node.Content[n], node.Content[n+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		w.positions[at] = value
		switch {
		case fixed && !slices.Contains(known, key.Value):
			w.findings = append(w.findings, Finding{
				File: w.file, Line: key.Line, Column: key.Column, Path: at,
				Message: "is not a known key: " + strings.Join(known, ", "),
			})
		case value.Kind == yaml.MappingNode:
			w.mapping(at, value)
		case value.Kind == yaml.SequenceNode:
			for m, item := range value.Content {
				w.positions[fmt.Sprintf("%s[%d]", at, m)] = item
			}
		}
	}
}

// locate fills in where the value a finding is about stands; a value that is
// missing, or a default, is reported at the mapping that should hold it.
func (w *installationWalk) locate(f *Finding, root *yaml.Node) {
	node, path := w.positions[f.Path], f.Path
	for node == nil && strings.Contains(path, ".") {
		path = path[:strings.LastIndex(path, ".")]
		node = w.positions[path]
	}
	if node == nil {
		node = root
	}
	f.File, f.Line, f.Column = w.file, node.Line, node.Column
}
