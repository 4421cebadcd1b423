package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/synth"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/validate"
)

// maxFileBytes bounds a configuration or installation file.
const maxFileBytes = 1 << 20

// validateFlags are the flags of `aphex validate`.
type validateFlags struct {
	root, region, endpoint string
	schema, online         bool
}

func newValidate() *cobra.Command {
	f := validateFlags{}
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a configuration and print every finding",
		Long: `Checks FILE (default aphex-config.yaml) against the schema and all rules. Every
finding is printed at once as file:line:column: path: what, what is allowed.

If there is none, what the configuration says of the checkout is checked: that
every stack's path leads to a CDK app, and that each app has the context its
environment requires. What is not there is a warning if there are build commands,
which may make it. With --online the role of every environment is assumed too,
with the AWS credentials of your environment. Which programs the worker has, only
a run can tell.

Exit code 2 if there are findings.`,
		Args: atMostArgs(1, "at most one argument: the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.schema {
				_, err := cmd.OutOrStdout().Write(pipeline.Schema())
				return err
			}
			if !f.online && (f.region != "" || f.endpoint != "") {
				return usageError{errors.New("--region and --endpoint-url are for --online only")}
			}
			name := pipeline.DefaultFile
			if len(args) == 1 {
				name = args[0]
			}
			return f.run(cmd, name)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.schema, "schema", false, "print the JSON schema instead, for editors")
	flags.BoolVar(&f.online, "online", false, "prove the credentials of every environment as well")
	flags.StringVar(&f.root, "root", "", "root of the checkout (default: the folder with .git at or above the file)")
	flags.StringVar(&f.region, "region", "", "with --online: AWS region of the base credentials")
	flags.StringVar(&f.endpoint, "endpoint-url", "", "with --online: AWS endpoint, for emulators")
	return cmd
}

// run checks the configuration, then what it says of the checkout and of AWS.
func (f *validateFlags) run(cmd *cobra.Command, name string) error {
	cfg, err := loadConfig(name)
	if err != nil {
		return err
	}
	root, err := f.checkout(name)
	if err != nil {
		return err
	}
	var findings []error
	if root != "" {
		if findings, err = inCheckout(cmd.Context(), cfg, root, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	if f.online {
		denied, err := f.credentials(cmd, cfg)
		if err != nil {
			return err
		}
		findings = append(findings, denied...)
	}
	for _, allowed := range cfg.AllowedSecrets {
		if _, err := fmt.Fprintln(cmd.ErrOrStderr(), allowed); err != nil {
			return err
		}
	}
	if len(findings) > 0 {
		return reportFindings(cmd.ErrOrStderr(), name, findings)
	}
	text := fmt.Sprintf("%s is valid: %s, topology %s\n", name, count.Of(len(cfg.Environments), "environment"), pipeline.TopologyDigest(cfg))
	if root == "" {
		text += "the apps and their context were not looked at: the file is in no checkout, --root names one\n"
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// checkout is the root of the checkout; empty if the configuration is in none.
func (f *validateFlags) checkout(name string) (string, error) {
	if f.root == "" {
		return checkoutOf(name)
	}
	if info, err := os.Stat(f.root); err != nil || !info.IsDir() {
		return "", usageError{fmt.Errorf("--root is %q, which is no folder", f.root)}
	}
	return filepath.Abs(f.root)
}

// inCheckout checks what the configuration says of a checkout.
func inCheckout(ctx context.Context, cfg *pipeline.Config, root string, warnings io.Writer) ([]error, error) {
	findings, err := appsIn(ctx, cfg, root, warnings)
	if err != nil {
		return nil, err
	}
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigInvalid, "open the checkout", "Give a readable folder with --root", err)
	}
	defer func() { _ = tree.Close() }()
	return append(findings, validate.Context(ctx, checkoutFiles{tree}, cfg)...), nil
}

// appsIn looks for the app of every stack as the deployment will. What is not
// in the checkout may be made by the build, if there is one.
func appsIn(ctx context.Context, cfg *pipeline.Config, root string, warnings io.Writer) (findings []error, err error) {
	const op, remedy = "make a folder for the look at the apps", "Check that TMPDIR is writable and not full"
	dir, err := os.MkdirTemp("", "aphex-validate-")
	if err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, op, remedy, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	local, err := worker.NewLocal(root, dir, nil)
	if err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, op, remedy, err)
	}
	finder := synth.New(synth.Config{Worker: local})
	looked := map[string]bool{}
	for _, target := range cfg.Environments {
		for _, stack := range target.Stacks {
			name := path.Clean(stack.Path)
			if looked[name] {
				continue
			}
			looked[name] = true
			_, err := finder.FindApp(ctx, name)
			switch {
			case err == nil:
			case fault.From(err).Reason == fault.AppMissing && len(cfg.Build.Commands) > 0:
				if _, err := fmt.Fprintf(warnings, "warning: %s; fine if the build commands make it\n", err); err != nil {
					return nil, err
				}
			default:
				findings = append(findings, err)
			}
		}
	}
	return findings, nil
}

// credentials proves those of every environment as the stage does.
func (f *validateFlags) credentials(cmd *cobra.Command, cfg *pipeline.Config) ([]error, error) {
	who := &identity{options: awsauth.Options{Region: f.region, EndpointURL: f.endpoint}, redactor: redact.New()}
	// The names end up in the name of the session, for the accounts' own logs.
	req := task.Request{Pipeline: "command-line", Run: task.Run{Name: "online"}, Stage: task.StageValidate}
	return validate.Credentials(cmd.Context(), cfg.Environments, func(ctx context.Context, target pipeline.Environment) (string, error) {
		return who.prove(ctx, req, target)
	}, cmd.OutOrStdout())
}

// reportFindings prints each finding and says how the command ends. If all of
// them are expected to pass, that is told by the exit code.
func reportFindings(w io.Writer, name string, findings []error) error {
	code := exitTransient
	for _, finding := range findings {
		f := fault.From(finding)
		if f.Class != fault.Transient {
			code = exitUsage
		}
		text := fmt.Sprintf("error  %s   [%s]\n", finding, f.Reason)
		if f.Remedy != "" {
			text += fmt.Sprintf("fix    %s\n", f.Remedy)
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return exitError{code, fmt.Errorf("%s: %s", name, count.Of(len(findings), "finding"))}
}

func loadConfig(name string) (*pipeline.Config, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return pipeline.Load(name, data)
}

// readFile reads a bounded file.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigMissing, "read "+name, "Give the path of an existing file", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("it is larger than %d bytes", maxFileBytes)
	}
	return data, fault.Wrap(fault.User, fault.ConfigInvalid, "read "+name, "Give the path of a readable file of at most 1 MiB", err)
}
