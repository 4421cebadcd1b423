package validate

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

const (
	// defaultPatience is the time the worker has to tell its versions where
	// Config.Patience is zero. Node takes a twentieth of a second.
	defaultPatience = 10 * time.Second
	// versionGrace is what is left to a program that does not answer.
	versionGrace = time.Second
	// commandLineVersion lets node read the version of the CDK command line,
	// whose path is the argument. The command line itself takes half a second.
	commandLineVersion = `const fs = require("fs"), {dirname, join} = require("path")
JSON.parse(fs.readFileSync(join(dirname(fs.realpathSync(process.argv[1])), "..", "package.json"))).version`
)

// versions are what the log and the message tell of node and the CDK. Nothing
// of it fails the stage.
type versions struct {
	// programs are node and the CDK command line of the worker's PATH, as far as
	// their versions are known: "node v24.1.0".
	programs []string
	// lines are for the log.
	lines []string
}

// versions asks the worker, as a build command would, and the commit.
func (s *Stage) versions(ctx context.Context, cfg *pipeline.Config) versions {
	var v versions
	limited, stop := context.WithTimeout(ctx, s.cfg.Patience)
	defer stop()
	if found, err := s.cfg.Programs.LookPath(limited, []string{"node", "cdk"}, cfg.Build.Env); err == nil { // else the check of the tools has told it
		node, cdk := found["node"], found["cdk"]
		var texts []string
		say := func(name, found, version string) {
			switch {
			case found == "":
				texts = append(texts, "no "+name)
			case version == "":
				texts = append(texts, name+" of unknown version")
			default:
				texts = append(texts, name+" "+version)
				v.programs = append(v.programs, name+" "+version)
			}
		}
		say("node", node, s.version(limited, cfg, node, "--version"))
		version := ""
		if node != "" && cdk != "" {
			version = s.version(limited, cfg, node, "-p", commandLineVersion, cdk)
		}
		if version == "" {
			version = s.version(limited, cfg, cdk, "--version")
		}
		say("cdk", cdk, version)
		v.lines = append(v.lines, "the worker has "+strings.Join(texts, ", "))
	}
	v.lines = append(v.lines, pins(ctx, s.cfg.Workspace, cfg)...)
	return v
}

// aVersion is a line that begins with a version.
var aVersion = regexp.MustCompile(`(?m)^v?[0-9]+(?:\.[0-9]+)+[-+.0-9A-Za-z]{0,40}`)

// version runs a program that tells a version; empty if it does not.
func (s *Stage) version(ctx context.Context, cfg *pipeline.Config, argv ...string) string {
	if argv[0] == "" {
		return ""
	}
	var said bytes.Buffer
	exit, err := s.cfg.Programs.Exec(ctx, worker.Command{Argv: argv, Env: cfg.Build.Env, Grace: versionGrace, MaxOutput: 4 << 10}, &said)
	if err != nil || exit.Code != 0 {
		return ""
	}
	return aVersion.FindString(said.String())
}

// pins returns a line for each file that says which CDK the apps want.
func pins(ctx context.Context, files pipeline.Files, cfg *pipeline.Config) []string {
	var lines []string
	looked := map[string]bool{}
	for _, target := range cfg.Environments {
		for _, stack := range target.Stacks {
			for dir := path.Clean(stack.Path); !looked[dir]; dir = path.Dir(dir) {
				looked[dir] = true
				if line := pinned(ctx, files, dir); line != "" {
					lines = append(lines, line)
					break
				}
			}
		}
	}
	return lines
}

// cdkPackages are the command line and the library.
func cdkPackages() []string { return []string{"aws-cdk", "aws-cdk-lib"} }

// aPin is a version, or a range of them.
var aPin = regexp.MustCompile(`^[-+.0-9A-Za-z^~<>=|* ]{1,60}$`)

// pinned says what the lock file of a folder, else its package.json, has of the
// CDK; empty if there is nothing.
func pinned(ctx context.Context, files pipeline.Files, dir string) string {
	for _, from := range []struct{ file, verb string }{{"package-lock.json", "pins"}, {"package.json", "asks for"}} {
		name := path.Join(dir, from.file)
		object, found, err := readJSON(ctx, files, name)
		if err != nil || !found {
			continue
		}
		var texts []string
		for _, of := range cdkPackages() {
			for _, at := range [][]string{
				{"packages", "node_modules/" + of, "version"}, {"dependencies", of, "version"}, // the lock's, new and old
				{"dependencies", of}, {"devDependencies", of},
			} {
				if version, _ := valueAt(object, at).(string); aPin.MatchString(version) {
					texts = append(texts, of+" "+version)
					break
				}
			}
		}
		if len(texts) > 0 {
			return fmt.Sprintf("%s %s %s", name, from.verb, strings.Join(texts, ", "))
		}
	}
	return ""
}

// valueAt is the value at a path of keys; nil if there is none.
func valueAt(value any, keys []string) any {
	for _, key := range keys {
		object, _ := value.(map[string]any) // another type has no keys
		value = object[key]
	}
	return value
}
