package deploy_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/solo"
)

// A process that is killed while it makes, executes or watches a change set
// leaves nothing to the next one but to go on. `make chaos-deploy` does it many
// times.
func TestKill_TheNextProcessGoesOn(t *testing.T) {
	t.Parallel()
	for _, phase := range solo.Phases() {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			hit, err := solo.Kill(t.Context(), emulator(t), t.TempDir(), "aphex-kill-"+string(phase), phase, rand.New(rand.NewPCG(seed, 0)))
			require.NoError(t, err, "killed %s (seed %d)", hit, seed)
		})
	}
}

// SIGTERM begins nothing new, keeps what is known and says that CloudFormation
// goes on, whether a change set is just being executed or watched; the next
// process joins.
func TestTerminate_SaysWhatGoesOn(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"ExecuteChangeSet", "DescribeStackEvents"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			e, dir := emulator(t), t.TempDir()
			names := []string{"aphex-term-a-" + operation, "aphex-term-b-" + operation}
			require.NoError(t, solo.Assembly(filepath.Join(dir, "assembly"), target, region, []solo.Stack{
				{Name: names[0], Template: solo.Waiting("1")}, {Name: names[1], Template: parameter("x"), After: names[:1]},
			}))
			proxy, err := solo.NewProxy(e.Endpoint(), 0)
			require.NoError(t, err)
			t.Cleanup(proxy.Close)
			spec := solo.Spec{
				Dir: filepath.Join(dir, "state"), Environment: "dev", Assembly: filepath.Join(dir, "assembly"), Endpoint: proxy.URL(), TemplateEndpoint: e.Endpoint(),
				Account: account, Region: region, Run: "aphex-term", Config: solo.Config(region, 1, map[string]string{"dev": target}, map[string][]string{"dev": names}),
			}
			asked, held := make(chan struct{}), make(chan struct{})
			first := sync.OnceFunc(func() { close(asked) })
			proxy.On(func(call aws.Call, forward func()) bool {
				forward()
				if call.Operation == operation {
					first()
					<-held // the answer comes when nobody waits for it any more
				}
				return true
			})
			process, err := solo.Start(t.Context(), spec)
			require.NoError(t, err)
			select {
			case <-asked:
			case <-process.Ended():
			}
			require.NoError(t, process.Terminate())
			reply, err := process.Wait()
			close(held)
			require.NoError(t, err)
			require.Equal(t, "Failed", reply.Phase)
			require.Contains(t, reply.Message, "Retry the run: it goes on where it was")
			log, err := os.ReadFile(filepath.Join(spec.Dir, "log"))
			require.NoError(t, err)
			require.Contains(t, string(log), names[0]+" (eu-west-1): the stack was left in CREATE_IN_PROGRESS", "what goes on is said")
			client := cfnsdk.NewFromConfig(config(e, target))
			require.True(t, executing(t.Context(), client, names[0]), "nothing is cancelled or rolled back")
			require.Empty(t, mutations(e, names[1]), "nothing new is begun")

			again, err := solo.Start(t.Context(), spec)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return solo.Signal(t.Context(), client, names[0]) == nil }, 30*time.Second, 50*time.Millisecond)
			reply, err = again.Wait()
			require.NoError(t, err)
			require.Equal(t, "Succeeded", reply.Phase, reply.Message)
			require.Equal(t, []string{"CreateChangeSet", "ExecuteChangeSet"}, mutations(e, names[0]))
			require.Equal(t, []string{"CreateChangeSet", "ExecuteChangeSet"}, mutations(e, names[1]))
		})
	}
}

func executing(ctx context.Context, client *cfnsdk.Client, name string) bool {
	out, err := client.DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: awssdk.String(name)})
	return err == nil && out.Stacks[0].StackStatus == "CREATE_IN_PROGRESS"
}

// mutations lists the calls that change a stack.
func mutations(e *aws.Emulator, name string) []string {
	var out []string
	for _, c := range e.Calls() {
		stack := c.Form.Get("StackName")
		reads := strings.HasPrefix(c.Operation, "Describe") || strings.HasPrefix(c.Operation, "Get") || strings.HasPrefix(c.Operation, "List")
		if !reads && (stack == name || strings.Contains(stack, "/"+name+"/")) {
			out = append(out, c.Operation)
		}
	}
	return out
}
