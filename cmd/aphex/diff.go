package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/diff"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/synth"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// errDifferences ends a diff that --exit-code asked to end so. The report has
// said it all.
var errDifferences = errors.New("there are differences")

// What --exit-code looks at.
const (
	anyDifference      = "any"
	securityDifference = "security"
)

// diffFlags are the flags of `aphex diff`.
type diffFlags struct {
	config, root, output, exitCode, owner, region, endpoint string
	stacks                                                  []string
	changeSets                                              bool
}

func newDiff() *cobra.Command {
	f := diffFlags{}
	cmd := &cobra.Command{
		Use:   "diff [ENVIRONMENT...]",
		Short: "Show what a deployment would change",
		Long: `Synthesizes the CDK apps of environments (default: all) in this checkout as their
deployment would, and compares the configured stacks with those that are there:
resources, outputs, parameters, conditions, mappings, tags and settings, and
apart whatever grants or limits access.

It writes nothing and assumes nothing but the look-up roles that the app names;
where there is none it reads with what deploys the stack, and says so. What is
replaced, only CloudFormation knows: with --change-set it is asked, by change
sets that are never executed and always removed, with the deploy roles.

AWS credentials are those of your environment; the apps run as you do, on this
machine, without them. Run the build commands before, if the apps need what
they make.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.run(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", pipeline.DefaultFile, "the repository's configuration")
	flags.StringVar(&f.root, "root", "", "root of the checkout (default: the folder with .git at or above the configuration, else the configuration's)")
	flags.StringArrayVar(&f.stacks, "stack", nil, "configured name of a stack to look at; may be repeated (default: all)")
	flags.BoolVar(&f.changeSets, "change-set", false, "ask CloudFormation as well, by change sets that are never executed and always removed")
	flags.StringVar(&f.owner, "owner", "", "with --change-set: whose preview it is, such as a pull request's number; what a killed one of the same owner left is removed (default: this machine and checkout)")
	flags.StringVarP(&f.output, "output", "o", "table", "table, json or markdown")
	flags.StringVar(&f.exitCode, "exit-code", "", "end with 3 if there are differences; =security: only if what grants or limits access differs")
	flags.Lookup("exit-code").NoOptDefVal = anyDifference
	flags.StringVar(&f.region, "region", "", "AWS region of the base credentials")
	flags.StringVar(&f.endpoint, "endpoint-url", "", "AWS endpoint, for emulators")
	return cmd
}

func (f *diffFlags) check() error {
	if !slices.Contains([]string{"table", "json", "markdown"}, f.output) {
		return usageError{fmt.Errorf("--output is %q: table, json and markdown are allowed", f.output)}
	}
	if !slices.Contains([]string{"", anyDifference, securityDifference}, f.exitCode) {
		return usageError{fmt.Errorf("--exit-code is %q: any and security are allowed", f.exitCode)}
	}
	if f.owner != "" && !f.changeSets {
		return usageError{errors.New("--owner is for --change-set only")}
	}
	return nil
}

// run makes the report and writes it.
func (f *diffFlags) run(cmd *cobra.Command, names []string) error {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return err
	}
	environments, err := chosen(cfg, names)
	if err != nil {
		return err
	}
	redactor := redact.New()
	stacks, err := f.stacksOf(cmd, cfg, environments, redactor)
	if err != nil {
		return redactedError{err, redactor}
	}
	strength := diff.Templates
	if f.changeSets {
		strength = diff.ChangeSets
	}
	report := diff.New(strength, stacks)
	if err := f.write(redactor, cmd.OutOrStdout(), report); err != nil {
		return err
	}
	return f.verdict(report)
}

// chosen returns the environments of the given names in the order of the
// configuration; all for none.
func chosen(cfg *pipeline.Config, names []string) ([]pipeline.Environment, error) {
	var all []string
	var out []pipeline.Environment
	for _, environment := range cfg.Environments {
		all = append(all, environment.Name)
		if len(names) == 0 || slices.Contains(names, environment.Name) {
			out = append(out, environment)
		}
	}
	for _, name := range names {
		if !slices.Contains(all, name) {
			return nil, usageError{fmt.Errorf("there is no environment %q; the configuration has %s", name, someOf(all))}
		}
	}
	return out, nil
}

// write writes the report; secrets that this process has seen are hidden.
func (f *diffFlags) write(redactor *redact.Redactor, w io.Writer, report diff.Report) error {
	out := redact.NewWriter(w, redactor)
	var err error
	switch f.output {
	case "json":
		err = writeJSON(out, report)
	case "markdown":
		err = diff.WriteMarkdown(out, report)
	default:
		err = diff.WriteTable(out, report)
	}
	return errors.Join(err, out.Flush())
}

// verdict is how the command ends once the report is written.
func (f *diffFlags) verdict(report diff.Report) error {
	var refused []string
	for _, s := range report.Stacks {
		if s.ChangeSet != nil && s.ChangeSet.Status == diff.Failed {
			refused = append(refused, s.Environment+"/"+s.Name)
		}
	}
	switch {
	case len(refused) > 0:
		return fault.Newf(fault.User, fault.ChangeSetFailed, "preview by change sets",
			"See the report; a stack that needs what an earlier stack of the same deployment makes can be asked about only once that is there",
			"CloudFormation refuses those of %s", someOf(refused))
	case f.exitCode == anyDifference && report.Differences, f.exitCode == securityDifference && report.Security():
		return errDifferences
	}
	return nil
}

// stacksOf compares the stacks of environments.
func (f *diffFlags) stacksOf(cmd *cobra.Command, cfg *pipeline.Config, environments []pipeline.Environment, redactor *redact.Redactor) ([]diff.Stack, error) {
	root, err := f.checkout()
	if err != nil {
		return nil, err
	}
	owner, err := f.ownership(root)
	if err != nil {
		return nil, err
	}
	if f.changeSets {
		unlock, err := lockOwner(owner)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	dir, err := os.MkdirTemp("", "aphex-diff-")
	if err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, "make a folder for the synthesis", "Check that TMPDIR is writable and not full", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	local, err := worker.NewLocal(root, filepath.Join(dir, "worker"), os.Environ())
	if err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, "make a folder for the synthesis", "Check that TMPDIR is writable and not full", err)
	}
	who := &identity{options: awsauth.Options{Region: f.region, EndpointURL: f.endpoint}, redactor: redactor, personal: true}
	config := deploy.Config{
		Base: who.base, Synth: synthesizer{synth.New(synth.Config{Worker: local, Private: filepath.Join(dir, "assemblies"), Lookups: who.readingLookups})},
	}
	output := redact.NewWriter(cmd.ErrOrStderr(), redactor)
	env := task.Env{Output: output, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}}
	var out []diff.Stack
	for _, environment := range environments {
		request := deploy.PreviewRequest{Environment: environment, Artifacts: cfg.Build.Artifacts, Owner: owner, ChangeSets: f.changeSets, Stacks: f.ofEnvironment(environment)}
		if len(f.stacks) > 0 && len(request.Stacks) == 0 {
			continue
		}
		stacks, err := deploy.Preview(cmd.Context(), config, request, env)
		if err != nil {
			return nil, errors.Join(err, output.Flush())
		}
		out = append(out, stacks...)
	}
	if len(out) == 0 {
		return nil, usageError{fmt.Errorf("no chosen environment lists a stack %s", strings.Join(f.stacks, " or "))}
	}
	return out, output.Flush()
}

// ofEnvironment are the stacks of --stack that an environment lists.
func (f *diffFlags) ofEnvironment(environment pipeline.Environment) []string {
	var out []string
	for _, stack := range environment.Stacks {
		if slices.Contains(f.stacks, stack.Name) {
			out = append(out, stack.Name)
		}
	}
	return out
}

// checkout is the root of the checkout.
func (f *diffFlags) checkout() (string, error) {
	if f.root != "" {
		return filepath.Abs(f.root)
	}
	root, err := checkoutOf(f.config)
	if err == nil && root == "" {
		return filepath.Abs(filepath.Dir(f.config))
	}
	return root, err
}

// readingLookups returns credentials for looking things up: those of the role
// that the app names for it, and of the configured role only where that one
// cannot be assumed.
func (i *identity) readingLookups(ctx context.Context, target pipeline.Environment, lookupRole string) (map[string]string, error) {
	if lookupRole != "" && target.RoleARN != "" {
		reading := target
		reading.RoleARN = ""
		if credentials, err := i.lookups(ctx, reading, lookupRole); err == nil {
			return credentials, nil
		}
	}
	return i.lookups(ctx, target, lookupRole)
}
