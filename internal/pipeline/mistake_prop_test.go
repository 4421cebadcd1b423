package pipeline_test

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// draft is a valid configuration that is about to be broken in one place.
type draft struct {
	*rapid.T
	root *yaml.Node
}

// mistake is where a finding is expected and what it says.
type mistake struct {
	path    string
	atKey   bool // rather than at the value
	message string
}

// at returns key and value at a path; both are nil if there is nothing, and the
// key is for the root and entries of lists.
func at(root *yaml.Node, path string) (key, value *yaml.Node) {
	value = root
	for token := range strings.FieldsFuncSeq(path, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		parent := value
		key, value = nil, nil
		if parent.Kind == yaml.SequenceNode {
			if index, err := strconv.Atoi(token); err == nil && index < len(parent.Content) {
				value = parent.Content[index]
			}
		}
		for i := 0; parent.Kind == yaml.MappingNode && i+1 < len(parent.Content); i += 2 {
			if parent.Content[i].Value == token { // the last one of that name
				key, value = parent.Content[i], parent.Content[i+1]
			}
		}
		if value == nil {
			return nil, nil
		}
	}
	return key, value
}

func (d draft) add(mapping, key string, value any) string {
	_, node := at(d.root, mapping)
	var content yaml.Node
	require.NoError(d, content.Encode(value))
	node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &content)
	node.Style = 0
	return strings.TrimPrefix(mapping+"."+key, ".")
}

func (d draft) remove(mapping, key string) {
	_, node := at(d.root, mapping)
	for i := len(node.Content) - 2; i >= 0; i -= 2 {
		if node.Content[i].Value == key {
			node.Content = slices.Delete(node.Content, i, i+2)
		}
	}
}

func (d draft) set(mapping, key string, value any) string {
	d.remove(mapping, key)
	return d.add(mapping, key, value)
}

// sample draws one of several values of any types.
func (d draft) sample(label string, values ...any) any {
	return rapid.SampledFrom(values).Draw(d.T, label)
}

func (d draft) index(label, list string) string {
	_, node := at(d.root, list)
	return fmt.Sprintf("%s[%d]", list, rapid.IntRange(0, len(node.Content)-1).Draw(d.T, label))
}

func (d draft) environment() string { return d.index("environment", "environments") }
func (d draft) stack() string       { return d.index("stack", d.environment()+".stacks") }

// required are the keys each kind of mapping needs.
func (d draft) required() (mapping, key string) {
	switch rapid.IntRange(0, 3).Draw(d.T, "kind of mapping") {
	case 0:
		return "", rapid.SampledFrom([]string{"version", "build", "environments"}).Draw(d.T, "key")
	case 1:
		return "build", "commands"
	case 2:
		return d.environment(), rapid.SampledFrom([]string{"name", "region", "account", "stacks"}).Draw(d.T, "key")
	}
	return d.stack(), rapid.SampledFrom([]string{"name", "path"}).Draw(d.T, "key")
}

// mistakes breaks a draft in one way each.
var mistakes = map[string]func(d draft) mistake{
	"missing": func(d draft) mistake {
		mapping, key := d.required()
		d.remove(mapping, key)
		_, value := at(d.root, mapping)
		value.Style = 0
		return mistake{mapping, mapping == "build", fmt.Sprintf("the required key %q is missing", key)}
	},
	"type": func(d draft) mistake {
		mapping, key := d.required()
		wrong := d.sample("value", 1.5, true, []any{map[string]any{"a": 1}}, map[string]any{"x-a": 1}, nil)
		list, mappings := slices.Contains([]string{"commands", "stacks", "environments"}, key), key == "build"
		if _, isList := wrong.([]any); list && isList {
			wrong = "text"
		}
		if _, isMapping := wrong.(map[string]any); mappings && isMapping {
			wrong = "text"
		}
		return mistake{d.set(mapping, key, wrong), false, ""}
	},
	"unknown": func(d draft) mistake {
		mapping := rapid.SampledFrom([]string{"", "build", d.environment(), d.stack()}).Draw(d.T, "mapping")
		return mistake{d.add(mapping, rapid.SampledFrom([]string{"zzz", "regoin", "Name", "patth", "time-out"}).Draw(d.T, "key"), "a"), true, "unknown key"}
	},
	"twice": func(d draft) mistake {
		mapping, key := d.required()
		_, value := at(d.root, strings.TrimPrefix(mapping+"."+key, "."))
		return mistake{d.add(mapping, key, value), true, "the key stands twice; it was first given in line"}
	},
	"environment twice": func(d draft) mistake {
		_, list := at(d.root, "environments")
		_, copied := at(d.root, d.environment())
		list.Content = append(list.Content, copied)
		return mistake{fmt.Sprintf("environments[%d].name", len(list.Content)-1), false, "stands twice"}
	},
	"stack twice": func(d draft) mistake {
		environment := d.environment()
		_, list := at(d.root, environment+".stacks")
		_, copied := at(d.root, d.index("copied", environment+".stacks"))
		list.Content = append(list.Content, copied)
		return mistake{fmt.Sprintf("%s.stacks[%d].name", environment, len(list.Content)-1), false, "stands twice in this environment"}
	},
	"no stacks": func(d draft) mistake {
		return mistake{d.set(d.environment(), "stacks", []any{}), false, "the list is empty"}
	},
	"no environments": func(d draft) mistake { return mistake{d.set("", "environments", []any{}), false, "the list is empty"} },
	"version": func(d draft) mistake {
		return mistake{d.set("", "version", d.sample("version", "1", "2.0", "v1.0")), false, `allowed: "1.0"`}
	},
	"account": func(d draft) mistake {
		account := d.sample("account", "12345678901", "1234567890123", "1234-5678-9012", "my-account", "１２３４５６７８９０１２", 123456789012, 12345)
		return mistake{d.set(d.environment(), "account", account), false, "account"}
	},
	"region": func(d draft) mistake {
		region := d.sample("region", "eu-wset-1", "Frankfurt", "us-east-1a", "eu-west", "eu west 1", "*", " ")
		return mistake{d.set(d.environment(), "region", region), false, "an AWS region"}
	},
	"name": func(d draft) mistake {
		name := d.sample("name", "Dev", "a_b", "-a", "a-", "a.b", strings.Repeat("a", 41), " ", "pipeline")
		return mistake{d.set(d.environment(), "name", name), false, ""}
	},
	"duration": func(d draft) mistake {
		mapping := rapid.SampledFrom([]string{"build", d.environment(), d.stack()}).Draw(d.T, "mapping")
		if rapid.Bool().Draw(d.T, "of tests") {
			mapping = d.set(d.environment(), "tests", map[string]any{"commands": []string{"a"}})
		}
		return mistake{d.set(mapping, "timeout", d.sample("duration", "5", "-1h", "1d", "25h", "90 minutes", "0s", "1h 30m", "forever")), false, "allowed"}
	},
	"path": func(d draft) mistake {
		path := d.sample("path", "../x", "/etc", "~/x", ".git/config", "a/../../b", "..")
		if rapid.Bool().Draw(d.T, "of artifacts") {
			return mistake{d.set("build", "artifacts", path), false, "leads out of the repository"}
		}
		return mistake{d.set(d.stack(), "path", path), false, "leads out of the repository"}
	},
	"wildcard": func(d draft) mistake {
		return mistake{d.set(d.stack(), "name", d.sample("name", "Shop*", "?", "A{1}", " A")), false, "the exact name of one stack"}
	},
	"image": func(d draft) mistake {
		return mistake{d.set("", "worker", map[string]any{"image": d.sample("image", "node", "node:latest", "a b:1", "Node:1", "node:{{x}}")}) + ".image", false, "registry.example.com/team/node:24.1"}
	},
	"variable": func(d draft) mistake {
		d.set("build", "env", map[string]any{})
		return mistake{d.add("build.env", rapid.SampledFrom([]string{"1A", "A-B", "APHEX_X"}).Draw(d.T, "variable"), "a"), true, ""}
	},
	"role": func(d draft) mistake {
		environment := d.environment()
		d.set(environment, "account", "111111111111")
		return mistake{d.set(environment, "roleArn", d.sample("role", "arn:aws:iam::222222222222:role/a", "arn:aws:iam::111111111111:user/a", "deploy")), false, ""}
	},
	"choice": func(d draft) mistake {
		environment := d.environment()
		switch rapid.IntRange(0, 3).Draw(d.T, "choice") {
		case 0:
			return mistake{d.set("", "selfModification", "sometimes"), false, "allowed"}
		case 1:
			return mistake{d.set(environment, "onFailedStack", "retry"), false, "allowed"}
		case 2:
			return mistake{d.set(environment, "concurrency", d.sample("concurrency", 0, 33, -1, 1.5, "four")), false, ""}
		}
		return mistake{d.set(d.stack(), "onEmpty", "keep"), false, "allowed"}
	},
	"secret": func(d draft) mistake {
		return mistake{d.set(d.stack(), "x-password", "hunter2"), false, "looks like a secret"}
	},
}

// texts breaks the text of a valid configuration before the line of a key at
// the root, so that it is no YAML, or no single document, any more.
var texts = map[string]struct{ insert, path, message string }{
	"tab":             {"\tzzz: 1", "", "indented with a tab"},
	"second document": {"---\nzzz: 1\n...", "", "a second document begins here"},
	"bracket":         {"zzz: [1", "", "not valid YAML"},
	"quote":           {"zzz: \"1\" 2", "", "not valid YAML"},
	"colons":          {"zzz: a: b", "", "not valid YAML"},
	"no key":          {"zzz", "", "not valid YAML"},
	"control":         {"zzz: \x01", "", "not valid YAML"},
	"bytes":           {"zzz: \xff", "", "the byte 0xff is not valid UTF-8"},
	"alias":           {"zzz: *nobody", "", "not valid YAML"},
	"tag":             {"x-z: !!binary aGk=", "x-z", "the tag"},
	"merge":           {"<<: {a: 1}", "", "merge keys"},
	"number as key":   {"1: a", "", "is not text"},
}

// Whatever is valid and then broken in one place is refused, with a finding at
// that place that says what is wrong with it.
//
// Feature: aphex-pipeline, Property 19: Configuration schema validation
func TestLoad_OneMistakeAnywhereIsRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		valid, err := yaml.Marshal(drawConfig(t))
		require.NoError(t, err)
		_, err = pipeline.Load("c", valid)
		require.NoError(t, err)
		var document yaml.Node
		require.NoError(t, yaml.Unmarshal(valid, &document))
		d := draft{t, document.Content[0]}
		made := mistakes[rapid.SampledFrom(slices.Sorted(maps.Keys(mistakes))).Draw(t, "mistake")](d)
		text, err := yaml.Marshal(&document)
		require.NoError(t, err)
		var broken yaml.Node
		require.NoError(t, yaml.Unmarshal(text, &broken))
		key, node := at(broken.Content[0], made.path)
		require.NotNil(t, node, "%s in:\n%s", made.path, text)
		if made.atKey {
			node = key
		}
		requireFinding(t, text, node.Line, made.path, made.message)
	})
}

// Feature: aphex-pipeline, Property 19: Configuration schema validation
func TestLoad_BrokenTextAnywhereIsRefused(t *testing.T) {
	t.Parallel()
	keyAtRoot := regexp.MustCompile(`^[a-z]+`)
	rapid.Check(t, func(t *rapid.T) {
		valid, err := yaml.Marshal(drawConfig(t))
		require.NoError(t, err)
		lines := strings.SplitAfter(string(valid), "\n")
		var places []int
		for i, line := range lines {
			if i > 0 && keyAtRoot.MatchString(line) {
				places = append(places, i)
			}
		}
		place := rapid.SampledFrom(places).Draw(t, "place")
		made := texts[rapid.SampledFrom(slices.Sorted(maps.Keys(texts))).Draw(t, "mistake")]
		text := strings.Join(slices.Insert(lines, place, made.insert+"\n"), "")
		requireFinding(t, []byte(text), place+1, made.path, made.message)
	})
}

// requireFinding demands that text is refused, with this among the findings.
func requireFinding(t *rapid.T, text []byte, line int, path, message string) {
	t.Helper()
	checkOutcome(t, text)
	_, err := pipeline.Load("c", text)
	invalid, ok := errors.AsType[*pipeline.InvalidError](err)
	require.True(t, ok, "accepted, or %v:\n%s", err, text)
	require.True(t, slices.ContainsFunc(invalid.Findings, func(f pipeline.Finding) bool {
		return f.Line == line && f.Path == path && strings.Contains(f.Message, message)
	}), "no %q at %s in line %d: %v in:\n%s", message, path, line, invalid.Findings, text)
}
