package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/order"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// terminationLog is where Kubernetes reads a container's last words, which
// Argo makes the message of a failed node.
const terminationLog = "/dev/termination-log"

// podFlags are the flags of `aphex task` in a pod of a Workflow: what the
// plugin's calls carry.
type podFlags struct {
	workflow, uid, namespace, node, topology, predecessor, allowOlder, force, status, notifications, outputs string
}

func (f *podFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.workflow, "workflow", "", "name of the Workflow; the stage is then run for it, in one of its pods")
	flags.StringVar(&f.uid, "workflow-uid", "", "with --workflow: its UID")
	flags.StringVar(&f.namespace, "namespace", "", "with --workflow: its namespace")
	flags.StringVar(&f.node, "node", "", "with --workflow: name of the stage's node")
	flags.StringVar(&f.topology, "topology", "", "with --workflow: digest of the stages it was made with")
	flags.StringVar(&f.predecessor, "predecessor", "", "with --workflow: UID of the run whose build is taken over")
	flags.StringVar(&f.allowOlder, "allow-older", "", "with --workflow: true to replace a newer commit")
	flags.StringVar(&f.force, "force", "", "with --workflow: true to deploy what seems to be as wanted")
	flags.StringVar(&f.status, "status", "", "with --workflow: its status so far, for finish")
	flags.StringVar(&f.notifications, "notifications", "", "with --workflow: channels that hear of its end, for finish, as aphex generate writes them")
	flags.StringVar(&f.outputs, "outputs", "", "with --workflow: folder for the output parameters, one file each")
}

// call is what the plugin would have been asked, checked as that is.
func (f taskFlags) call(stage string) (argo.Call, error) {
	body := map[string]string{
		"stage": stage, "pipeline": f.pipeline, "environment": f.environment, "node": f.pod.node, "topology": f.pod.topology,
		"config": f.config, "repo": f.repo, "commit": f.commit, "branch": f.branch, "predecessor": f.pod.predecessor, "allowOlder": f.pod.allowOlder, "force": f.pod.force, "status": f.pod.status,
		"notifications": f.pod.notifications,
	}
	request, err := json.Marshal(map[string]any{
		"workflow": map[string]any{"metadata": map[string]string{"name": f.pod.workflow, "namespace": f.pod.namespace, "uid": f.pod.uid}},
		"template": map[string]any{"plugin": map[string]any{argo.PluginName: body}},
	})
	if err != nil {
		return argo.Call{}, fmt.Errorf("encode the stage's arguments: %w", err)
	}
	call, _, err := argo.Decode(bytes.NewReader(request))
	return call, err
}

// runInPod runs the stage as the plugin would, leaves its outputs in files and
// its message where Argo finds it.
func runInPod(cmd *cobra.Command, stage string, f taskFlags) error {
	redactor := redact.New()
	logger := slog.New(slog.NewJSONHandler(redactor.Records(cmd.ErrOrStderr()), nil))
	call, err := f.call(stage)
	if err != nil {
		return lastWords(logger, fault.Message(err), err)
	}
	cfg, err := sidecarConfig(cmd.Context(), logger, redactor, order.GuardPods)
	if err != nil {
		return lastWords(logger, fault.Message(err), err)
	}
	cfg.Stdout = cmd.OutOrStdout()
	reply, err := sidecar.RunStage(cmd.Context(), cfg, call)
	if err != nil {
		return lastWords(logger, fault.Message(err), err)
	}
	if err := writeOutputs(f.pod.outputs, stage, reply.Node); err != nil {
		return lastWords(logger, fault.Message(err), err)
	}
	if reply.Node.Phase == argo.Succeeded {
		return nil
	}
	code, err := strconv.Atoi(reply.Node.Outputs.ExitCode)
	if err != nil {
		return fmt.Errorf("read the stage's exit code: %w", err)
	}
	return exitError{code: code, err: lastWords(logger, reply.Node.Message, errors.New(reply.Node.Message))}
}

// lastWords makes text the message of the node and returns err. Where there is
// no such place, the end of the log has it.
func lastWords(logger *slog.Logger, text string, err error) error {
	file, openErr := os.OpenFile(terminationLog, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(openErr, fs.ErrNotExist) {
		return err
	}
	if openErr == nil {
		_, openErr = file.WriteString(text)
		openErr = errors.Join(openErr, file.Close())
	}
	if openErr != nil {
		logger.Warn("the message could not be handed over", slog.String("err", openErr.Error()))
	}
	return err
}

// writeOutputs writes every parameter the stage declares, and its message, to
// a file of its name.
func writeOutputs(dir, stage string, node *argo.Node) error {
	values := map[string]string{task.OutputMessage: node.Message}
	for _, p := range node.Outputs.Parameters {
		values[p.Name] = p.Value
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // G301: Argo's container reads it as another user
		return fmt.Errorf("make the folder of the outputs: %w", err)
	}
	for _, name := range append(task.Outputs(stage), task.OutputMessage) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(values[name]), 0o644); err != nil { //nolint:gosec // G306: as above
			return fmt.Errorf("write output %s: %w", name, err)
		}
	}
	return nil
}
