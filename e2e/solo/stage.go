package solo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Spec is one execution of the stage. Two processes with equal Specs are the
// same execution.
type Spec struct {
	// Dir keeps what outlives the process: journal, bucket, logs.
	Dir string `json:"dir"`
	// Config is the pipeline's configuration; Environment is one of it.
	Config      string `json:"config"`
	Environment string `json:"environment"`
	// Beside are more environments, deployed at the same time by runs of their
	// own.
	Beside []string `json:"beside"`
	// Assembly is the folder of the cloud assembly of every app.
	Assembly string `json:"assembly"`
	// Endpoint is where AWS is asked; TemplateEndpoint is where CloudFormation
	// reads templates.
	Endpoint         string `json:"endpoint"`
	TemplateEndpoint string `json:"templateEndpoint"`
	// Account is that of the base credentials, Region theirs.
	Account string `json:"account"`
	Region  string `json:"region"`
	// Run is the name of the run.
	Run string `json:"run"`
}

// Reply is how an execution ended.
type Reply struct {
	Phase   string `json:"phase"`
	Message string `json:"message"`
	// Outputs is the document of the stacks' outputs.
	Outputs string `json:"outputs"`
	// PeakKiB is the most memory that the process ever had resident.
	PeakKiB int `json:"peakKiB"`
}

// Run executes the stage and returns its final reply, or what the plugin
// answers when ctx ends.
func Run(ctx context.Context, s Spec, log io.Writer) (Reply, error) {
	call, ours, err := argo.Decode(strings.NewReader(s.call()))
	if err != nil || !ours {
		return Reply{}, errors.Join(errors.New("the call is not aphex's"), err)
	}
	bucket := store.NewDir(filepath.Join(s.Dir, "bucket"))
	stage := deploy.New(deploy.Config{
		Workspace: checkout(s.Config), Synth: prepared(s), Store: bucket, Private: filepath.Join(s.Dir, "private", s.Environment),
		TemplateEndpoint: s.TemplateEndpoint, Events: record.New(bucket), Base: s.base,
	})
	reply, err := sidecar.RunStage(ctx, sidecar.Config{
		Registry: task.Registry{task.StageDeployEnv: stage}, Journal: journal.NewFiles(filepath.Join(s.Dir, "journal"), "solo"), PodUID: "solo",
		LogDir: filepath.Join(s.Dir, "logs"), Logs: bucket, Stdout: log, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
		FirstPoll: 50 * time.Millisecond, LongPoll: time.Second, Requeue: 20 * time.Millisecond, Grace: 10 * time.Second,
	}, call)
	if err != nil {
		return Reply{}, err
	}
	out := Reply{Phase: string(reply.Node.Phase), Message: reply.Node.Message}
	if reply.Node.Outputs != nil {
		for _, p := range reply.Node.Outputs.Parameters {
			if p.Name == task.OutputStacks {
				out.Outputs = p.Value
			}
		}
	}
	out.PeakKiB, err = peak()
	return out, err
}

func (s Spec) call() string {
	body, err := json.Marshal(map[string]any{
		"stage": task.StageDeployEnv, "pipeline": "solo", "environment": s.Environment, "node": s.Run + ".deploy-" + s.Environment, "topology": "t",
		"config": pipeline.DefaultFile, "repo": "file:///solo", "commit": strings.Repeat("1", 40), "branch": "main",
	})
	if err != nil { // strings always marshal
		panic(err)
	}
	return fmt.Sprintf(`{"workflow":{"metadata":{"name":%q,"namespace":"solo","uid":%q}},"template":{"plugin":{"aphex":%s},"outputs":{"parameters":[{"name":"deployed"},{"name":%q},{"name":%q}]}}}`,
		s.Run, "uid-"+s.Run, body, task.OutputStacks, task.OutputStacksURL)
}

// base is the identity that awsauth.Base would find, with its retries and
// connections.
func (s Spec) base(context.Context) (awssdk.Config, error) {
	return awssdk.Config{
		Region: s.Region, Credentials: credentials.NewStaticCredentialsProvider(s.Account, "test", ""), BaseEndpoint: &s.Endpoint,
		HTTPClient: awsauth.Connections(), APIOptions: awsauth.APIOptions(), Retryer: func() awssdk.Retryer { return awserr.Retryer(5, 5*time.Second) },
	}, nil
}

// peak reads the high-water mark of this process's resident memory.
func peak() (int, error) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib int
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib, nil
		}
	}
	return 0, errors.New("the process does not know its peak of memory")
}

// Word is the first argument of a process that is one execution.
const Word = "solo-stage"

// Served runs the execution that the arguments ask for and returns its exit
// code; false if they ask for none. A program that calls Start calls it first.
func Served(args []string) (code int, served bool) {
	if len(args) != 3 || args[1] != Word {
		return 0, false
	}
	if err := serve(args[2]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// serve reads a Spec from a file and writes the Reply beside it.
func serve(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	reply, err := all(ctx, s)
	if err != nil {
		return err
	}
	if data, err = json.Marshal(reply); err != nil {
		return err
	}
	return os.WriteFile(name+".reply", data, 0o600)
}

// all deploys every environment of a Spec; the reply is that of the first one
// that does not succeed.
func all(ctx context.Context, s Spec) (Reply, error) {
	var mu sync.Mutex
	var reply Reply
	var group errgroup.Group
	for _, environment := range append([]string{s.Environment}, s.Beside...) {
		one := s
		one.Environment, one.Run = environment, s.Run+"-"+environment
		group.Go(func() error {
			got, err := Run(ctx, one, os.Stderr)
			mu.Lock()
			defer mu.Unlock()
			if reply.Phase == "" || reply.Phase == "Succeeded" {
				got.PeakKiB = max(got.PeakKiB, reply.PeakKiB)
				reply = got
			}
			return err
		})
	}
	err := group.Wait()
	return reply, err
}

// checkout holds nothing but a configuration.
type checkout string

func (c checkout) Prepare(context.Context, workspace.Source, io.Writer) error { return nil }
func (c checkout) File(context.Context, string) ([]byte, error)               { return []byte(c), nil }
func (c checkout) Reset(context.Context, string, io.Writer) error             { return nil }
func (c checkout) IsAncestor(context.Context, string, string) (bool, error)   { return true, nil }

// prepared hands out copies of the assembly, which the stage removes.
type prepared Spec

func (p prepared) FindApp(_ context.Context, name string) (string, error) { return name, nil }

func (p prepared) Synth(context.Context, deploy.SynthRequest, io.Writer) (string, error) {
	dir := filepath.Join(p.Dir, "private", p.Environment)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(dir, "synth-")
	if err != nil {
		return "", err
	}
	return made, os.CopyFS(made, os.DirFS(p.Assembly))
}
