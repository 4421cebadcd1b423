package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/assembly"
)

// Programs that can build.
const (
	// Auto takes Docker where an engine answers, else Buildah.
	Auto = "auto"
	// Docker is the docker command with an engine, by default the one that
	// DOCKER_HOST names.
	Docker = "docker"
	// Buildah builds without an engine.
	Buildah = "buildah"
)

// Build is an image to be made.
type Build struct {
	// ID is the asset's id; Name is for people.
	ID, Name string
	// Source says how. Its Directory is relative to Assembly.
	Source assembly.ImageSource
	// Assembly is the folder of the assembly on disk.
	Assembly string
	// App is the folder of the worker's tree in which a program that makes the
	// image runs.
	App string
	// Env is what that program gets beyond the environment of every command.
	Env map[string]string
}

// Key tells builds apart: equal keys make equal images.
func (b Build) Key() string {
	data, err := json.Marshal(b.Source)
	if err != nil { // strings only
		panic(err)
	}
	sum := sha256.Sum256(append([]byte(b.ID+"\x00"+b.App+"\x00"), data...))
	return hex.EncodeToString(sum[:10])
}

func (b Build) op() string { return "build the image of asset " + b.Name }

// tag is the image's local name.
func (b Build) tag() string { return "cdkasset-" + b.Key() + ":latest" }

// lacks says what of the build the program cannot do; empty if it can do all.
func (b Build) lacks(program string) string {
	if program != Buildah {
		return ""
	}
	if n := b.Source.Network; !slices.Contains([]string{"", "default", "host", "none", "private"}, n) {
		return fmt.Sprintf("network mode %q", n)
	}
	kept := buildahOutputs(b.Source.Outputs)
	if len(kept) > 1 {
		return fmt.Sprintf("more than one output (%s)", strings.Join(kept, ", "))
	}
	for _, output := range kept {
		kind := outputType(output)
		if !slices.Contains([]string{"local", "tar"}, kind) {
			return fmt.Sprintf("output %q", output)
		}
	}
	return ""
}

// outputType is the type of an output; a bare path is "local".
func outputType(output string) string {
	for part := range strings.SplitSeq(output, ",") {
		if kind, ok := strings.CutPrefix(part, "type="); ok {
			return kind
		}
	}
	return "local"
}

// buildahOutputs leaves out what means "keep the image", which Buildah does
// in any case.
func buildahOutputs(outputs []string) []string {
	var kept []string
	for _, output := range outputs {
		if output == "type=docker" || output == "type=image" {
			continue
		}
		kept = append(kept, output)
	}
	return kept
}

// arguments are those of the program after "build", in the CDK CLI's order.
func (b Build) arguments(program string) []string {
	s := b.Source
	args := []string{"--tag", b.tag()}
	pairs := func(flag string, values map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			args = append(args, flag, key+"="+values[key])
		}
	}
	single := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	pairs("--build-arg", s.BuildArgs)
	pairs("--build-context", s.BuildContexts)
	for _, id := range slices.Sorted(maps.Keys(s.Secrets)) {
		args = append(args, "--secret", "id="+id+","+s.Secrets[id])
	}
	single("--ssh", s.SSH)
	single("--target", s.Target)
	single("--file", s.Dockerfile)
	outputs := s.Outputs
	if program == Buildah {
		outputs = buildahOutputs(outputs)
	}
	if program != Buildah || s.Network != "default" {
		single("--network", s.Network)
	}
	single("--platform", s.Platform)
	for _, output := range outputs {
		args = append(args, "--output="+output)
	}
	if program == Docker {
		for _, cache := range s.CacheFrom {
			args = append(args, "--cache-from", cacheFlag(cache))
		}
		if s.CacheTo != nil {
			args = append(args, "--cache-to", cacheFlag(*s.CacheTo))
		}
	}
	if s.CacheDisabled {
		args = append(args, "--no-cache")
	}
	return append(args, ".")
}

func cacheFlag(c assembly.ImageCache) string {
	parts := []string{"type=" + c.Type}
	for _, key := range slices.Sorted(maps.Keys(c.Params)) {
		parts = append(parts, key+"="+c.Params[key])
	}
	return strings.Join(parts, ",")
}
