package synth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// What we tell the library we are. It asks for nothing newer (aws-cdk-lib
// 2.276.0) and writes assemblies that internal/assembly knows completely.
const (
	cliVersion    = "2.1148.1"
	schemaVersion = "55.0.0"
)

// maxContextBytes is how much context goes into CDK_CONTEXT_JSON; the rest
// goes into a file. Linux takes 128 KiB per variable; the CLI leaves room for
// the rest of the environment, too.
const maxContextBytes = 96 << 10

// overflowVariable names the file with the rest of the context. The library's
// variable is really called so: its constant has another name.
const overflowVariable = "CONTEXT_OVERFLOW_LOCATION_ENV"

// synthesis is one request on its way.
type synthesis struct {
	config  Config
	worker  Worker
	request Request
	out     io.Writer
	root    string // the worker's root folder as its programs see it
	scratch string // folder of the worker's tree that is ours alone
	project *project
	// lookedUp says why context is still missing after a look-up; it ends a
	// sentence.
	lookedUp string
}

// app runs the app and returns the folder of the worker's tree that holds the
// assembly.
func (s *synthesis) app(ctx context.Context) (string, error) {
	for _, note := range s.project.notes {
		if _, err := fmt.Fprintln(s.out, "warning: "+note); err != nil {
			return "", err
		}
	}
	source := path.Join(worker.SourceDir, s.request.App)
	command, folder, err := s.resolveCommand(ctx, source)
	if err != nil {
		return "", err
	}
	limited, stop := context.WithTimeoutCause(ctx, s.config.Timeout, errTimeout)
	defer stop()
	if s.project.build != "" {
		if err := s.exec(limited, source, s.project.build, "the build command of cdk.json", s.baseEnv()); err != nil {
			return "", err
		}
	}
	if folder != "" {
		return folder, nil
	}
	output := path.Join(s.scratch, "assembly")
	env, err := s.appEnv(limited, output)
	if err != nil {
		return "", err
	}
	if err := s.exec(limited, source, command, "the app", env); err != nil {
		return "", s.withCode(ctx, output, err)
	}
	return output, nil
}

// errorFile is where the library leaves a code for the error that ended the
// app.
const errorFile = "error.txt"

// withCode adds the library's own code for a failure, if it left one.
func (s *synthesis) withCode(ctx context.Context, output string, failure error) error {
	f, ok := errors.AsType[*fault.Fault](failure)
	if !ok || f.Reason != fault.SynthFailed {
		return failure
	}
	entries, err := s.worker.Stat(ctx, []string{path.Join(output, errorFile)})
	if err != nil || len(entries) == 0 {
		return failure
	}
	data, err := s.readFile(ctx, output, errorFile)
	code, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if err != nil || code == "" || len(code) > 100 {
		return failure
	}
	return fault.Newf(f.Class, f.Reason, f.Op, f.Remedy, "%w (the library's code: %s)", f.Err, code)
}

// resolveCommand finds out what the app setting means: a command, a script
// that Node has to run, or a folder that already holds the assembly.
func (s *synthesis) resolveCommand(ctx context.Context, source string) (command, folder string, err error) {
	command = s.project.command
	first, rest, _ := strings.Cut(strings.TrimSpace(command), " ")
	for _, try := range []struct{ name, arguments string }{{command, ""}, {first, rest}} {
		name := try.name
		full := path.Join(source, name)
		if path.IsAbs(name) || !strings.HasPrefix(full, worker.SourceDir+"/") || strings.ContainsRune(name, 0) {
			continue
		}
		entries, err := s.worker.Stat(ctx, []string{full})
		// A link out of the workspace, such as a virtual environment's python,
		// is not followed here: the shell finds what it leads to.
		elsewhere := err != nil && fault.From(err).Reason == fault.PathRefused
		if err != nil && !elsewhere {
			return "", "", fmt.Errorf("%s: %w", s.request.op(), err)
		}
		if len(entries) == 0 {
			continue
		}
		mode := entries[0].Mode
		if mode.IsDir() && name == command {
			return "", full, nil
		}
		if mode.IsRegular() && mode.Perm()&0o111 == 0 && path.Ext(name) == ".js" {
			return strings.TrimRight("node "+quote(name)+" "+try.arguments, " "), "", nil
		}
	}
	return command, "", nil
}

// quote makes text one word of a shell command.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// baseEnv is what aphex itself tells every program of the app. There are no
// credentials in it.
func (s *synthesis) baseEnv() map[string]string {
	environment := s.request.Environment
	env := map[string]string{
		"AWS_REGION":        environment.Region,
		"AWS_ACCOUNT":       environment.Account,
		"APHEX_ENVIRONMENT": environment.Name,
	}
	if s.request.Artifacts != "" {
		env[artifacts.Variable] = artifacts.Folder(s.root, s.request.Artifacts)
	}
	if s.request.Outputs != "" {
		env[outputs.DirVariable] = outputs.Folder(s.root, s.request.Outputs)
	}
	return env
}

// appEnv is the library's side of the protocol: see the CLI's execProgram.
func (s *synthesis) appEnv(ctx context.Context, output string) (map[string]string, error) {
	small, overflow, err := splitContext(s.project.context)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	// A fresh folder: files of an earlier run slow the library down and could
	// be taken for this one's.
	if err := s.worker.Remove(ctx, worker.OutDir, []string{path.Base(s.scratch)}); err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	if err := s.writeScratch(ctx, overflow); err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	absolute := path.Join(s.root, output)
	env := s.baseEnv()
	maps.Copy(env, map[string]string{
		"CDK_OUTDIR":             absolute,
		"CDK_CONTEXT_JSON":       string(small),
		"CDK_DEFAULT_ACCOUNT":    s.request.Environment.Account,
		"CDK_DEFAULT_REGION":     s.request.Environment.Region,
		"CDK_CLI_ASM_VERSION":    schemaVersion,
		"CDK_CLI_VERSION":        cliVersion,
		"CDK_ERROR_FILE":         path.Join(absolute, errorFile),
		"CDK_PERF_COUNTERS_FILE": path.Join(absolute, "performance-counters.json"),
		"PYTHONIOENCODING":       "utf-8",
	})
	if overflow != nil {
		env[overflowVariable] = path.Join(s.root, s.scratch, overflowFile)
	}
	if s.project.context.values["@aws-cdk/core:validateAgainstDefaultRules"] != true {
		// The library's lint only warns then, takes most of the time and the
		// memory of a synth, and changes no template. Policy plugins and
		// validations of constructs run all the same.
		env["CDK_VALIDATION"] = "false"
	}
	return env, nil
}

const overflowFile = "context.json"

// writeScratch makes the scratch folder, with the overflow if there is any.
func (s *synthesis) writeScratch(ctx context.Context, overflow []byte) error {
	files := map[string][]byte{}
	if overflow != nil {
		files[overflowFile] = overflow
	}
	tree, err := archive.Files(files)
	if err != nil {
		return err
	}
	return s.worker.WriteTree(ctx, s.scratch, tree, worker.WriteOptions{Clean: true})
}

// splitContext encodes context as JSON: as much of it as fits into a variable,
// and the rest, nil if there is none. The app reads them in this order.
func splitContext(context object) (small, overflow []byte, err error) {
	if small, err = encode(context); err != nil || len(small) <= maxContextBytes {
		return small, nil, err
	}
	var fits, rest object
	size := len("{}")
	for _, key := range context.keys {
		var entry object
		entry.set(key, context.values[key])
		text, err := encode(entry)
		if err != nil {
			return nil, nil, err
		}
		if size += len(text); size <= maxContextBytes {
			fits.set(key, context.values[key])
			continue
		}
		rest.set(key, context.values[key])
	}
	if small, err = encode(fits); err != nil {
		return nil, nil, err
	}
	overflow, err = encode(rest)
	return small, overflow, err
}

// errTimeout marks the end of Config.Timeout.
var errTimeout = errors.New("the time for synthesis is used up")

// exec runs a shell command in the app's folder.
func (s *synthesis) exec(ctx context.Context, dir, command, what string, env map[string]string) error {
	exit, err := s.worker.Exec(ctx, worker.Command{Argv: []string{"sh", "-c", command}, Dir: dir, Env: env, Grace: s.config.Grace}, s.out)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errTimeout):
		return fault.Newf(fault.User, fault.SynthTimeout, s.request.op(), "See in the log where the app hangs; its last output is shown here",
			"%s (%s) did not end within %s and was stopped; %s", what, command, short(s.config.Timeout), exit.LastLines())
	case err != nil:
		return fmt.Errorf("%s: run %s: %w", s.request.op(), what, err)
	case exit.Code != 0:
		return fault.Newf(fault.User, fault.SynthFailed, s.request.op(), "Run the same command locally with CDK_DEFAULT_ACCOUNT and CDK_DEFAULT_REGION set as here",
			"%s (%s) ended with %s; %s", what, command, outcome(exit), exit.LastLines())
	}
	if exit.Warning != "" {
		_, err = fmt.Fprintf(s.out, "warning: %s\n", exit.Warning)
	}
	return err
}

func outcome(exit worker.Exit) string {
	if exit.Signal != "" {
		return "signal " + exit.Signal
	}
	return fmt.Sprintf("exit code %d", exit.Code)
}

// short formats a duration without zero units.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
