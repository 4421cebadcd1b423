package deploy_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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
// goes on; the next process joins.
func TestTerminate_SaysWhatGoesOn(t *testing.T) {
	t.Parallel()
	e := emulator(t)
	dir := t.TempDir()
	names := []string{"aphex-term-a", "aphex-term-b"}
	require.NoError(t, solo.Assembly(filepath.Join(dir, "assembly"), target, region, []solo.Stack{
		{Name: names[0], Template: solo.Waiting("1")}, {Name: names[1], Template: parameter("x"), After: names[:1]},
	}))
	spec := solo.Spec{
		Dir: filepath.Join(dir, "state"), Environment: "dev", Assembly: filepath.Join(dir, "assembly"), Endpoint: e.Endpoint(), TemplateEndpoint: e.Endpoint(),
		Account: account, Region: region, Run: "aphex-term", Config: solo.Config(region, 1, map[string]string{"dev": target}, map[string][]string{"dev": names}),
	}
	process, err := solo.Start(t.Context(), spec)
	require.NoError(t, err)
	client := cfnsdk.NewFromConfig(config(e, target))
	require.Eventually(t, func() bool { return executing(t.Context(), client, names[0]) }, 60*time.Second, 50*time.Millisecond)
	require.NoError(t, process.Terminate())
	reply, err := process.Wait()
	require.NoError(t, err)
	require.Equal(t, "Failed", reply.Phase)
	require.Contains(t, reply.Message, "Retry the run: it goes on where it was")
	log, err := os.ReadFile(filepath.Join(spec.Dir, "log"))
	require.NoError(t, err)
	require.Contains(t, string(log), names[0]+" (eu-west-1): the stack was left in CREATE_IN_PROGRESS", "what goes on is said")
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
