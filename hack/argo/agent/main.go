// Command agent is Argo's agent as `argoexec agent main` runs it, for tests
// without a cluster: the same AgentExecutor and the same plugin client, but
// API server, plugin and token are given by flags, and the client's patience
// can be cut to a test's scale.
//
// Like argoexec of v3.7 it takes no notice of SIGTERM. The number of workers
// and the patch rate are read by AgentExecutor itself, from the environment.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	executorplugins "github.com/argoproj/argo-workflows/v3/pkg/plugins/executor"
	"github.com/argoproj/argo-workflows/v3/workflow/executor"
	plugins "github.com/argoproj/argo-workflows/v3/workflow/util/plugins"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// pluginClient is workflow/executor/plugins/rpc with another patience.
type pluginClient struct{ plugins.Client }

func (p *pluginClient) ExecuteTemplate(ctx context.Context, args executorplugins.ExecuteTemplateArgs, reply *executorplugins.ExecuteTemplateReply) error {
	return p.Call(ctx, "template.execute", args, reply)
}

func main() {
	signal.Ignore(syscall.SIGTERM)
	if err := run(); err != nil {
		log.Print(err)
		os.Exit(64)
	}
}

func run() error {
	api := flag.String("api", "", "URL of the API server")
	namespace := flag.String("namespace", "", "namespace of the Workflow")
	name := flag.String("workflow", "", "name of the Workflow")
	uid := flag.String("uid", "", "UID of the Workflow")
	token := flag.String("token", "", "what the plugin expects")
	timeout := flag.Duration("timeout", 30*time.Second, "limit of one call")
	backoff := flag.Duration("backoff", time.Second, "pause before the second try of a call; it doubles")
	flag.Parse()
	if *api == "" || *name == "" || flag.NArg() == 0 {
		return errors.New("usage: agent -api URL -namespace N -workflow W -uid U -token T PLUGIN-URL…")
	}
	config := &rest.Config{Host: *api}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var known []executorplugins.TemplateExecutor
	for _, address := range flag.Args() {
		known = append(known, &pluginClient{plugins.New(address, *token, *timeout, wait.Backoff{
			Duration: *backoff, Jitter: 0.2, Factor: 2, Steps: 5,
		})})
	}
	return executor.NewAgentExecutor(clients, clients.RESTClient(), config, *namespace, *name, *uid, known).Agent(context.Background())
}
