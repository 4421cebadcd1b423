package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/parity"
	"github.com/aphex-pipeline/aphex/e2e/solo"
)

const (
	manyAssets, manyStacks, atOnce = 60, 40, 10
	// aimOverhead is what a stack may take beyond CloudFormation's own time.
	aimOverhead = 2 * time.Second
)

// deployCase is what is measured: in each round both sides do the jobs of
// before, then those that count.
type deployCase struct {
	name string
	aim  float64
	// jobs of a round; only the last one is timed.
	jobs func(round int) []job
	// waits says that stacks end when the harness says so.
	waits bool
}

// parameters is a template of some SSM parameters.
func parameters(count int, value string) string {
	var resources []string
	for i := range count {
		resources = append(resources, fmt.Sprintf(`"P%d": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": %q}}`, i, value))
	}
	return `{"Resources": {` + strings.Join(resources, ", ") + `}, "Outputs": {"Version": {"Value": "` + value + `"}}}`
}

func contents(prefix string, count int) []string {
	var out []string
	for i := range count {
		out = append(out, strings.Repeat(fmt.Sprintf("%s asset %d\n", prefix, i), 200))
	}
	return out
}

// shop is an app of three stacks, one after the other, with five assets.
func shop(round int, last string) []solo.Stack {
	name := func(part string) string { return fmt.Sprintf("shop%d-%s", round, part) }
	return []solo.Stack{
		{Name: name("data"), Template: parameters(4, name("one")), Assets: contents(name("data"), 2)},
		{Name: name("api"), Template: parameters(8, name("one")), Assets: contents(name("api"), 2), After: []string{name("data")}},
		{Name: name("web"), Template: parameters(3, name(last)), Assets: contents(name("web"), 1), After: []string{name("api")}},
	}
}

// one is a job in the first account of each side.
func one(name string, stacks []solo.Stack, concurrency int) job {
	return job{name: name, stacks: map[int][]solo.Stack{0: stacks}, concurrency: concurrency}
}

func independent(name, template string, count int) []solo.Stack {
	var stacks []solo.Stack
	for i := range count {
		stacks = append(stacks, solo.Stack{Name: fmt.Sprintf("%s-%d", name, i), Template: template})
	}
	return stacks
}

func deployCases() []deployCase {
	first := func(round int) job { return one(fmt.Sprintf("first-%d", round), shop(round, "one"), 1) }
	return []deployCase{
		{"first deploy, 3 stacks, 5 assets", 0.5, func(round int) []job { return []job{first(round)} }, false},
		{"deploy of 3 stacks without a change", 0.35, func(round int) []job {
			return []job{first(100 + round), one(fmt.Sprintf("again-%d", round), shop(100+round, "one"), 1)}
		}, false},
		{"update of one of 3 stacks", 0.5, func(round int) []job {
			return []job{first(200 + round), one(fmt.Sprintf("update-%d", round), shop(200+round, "two"), 1)}
		}, false},
		{fmt.Sprintf("%d assets to each of 3 accounts", manyAssets), 0.3, func(round int) []job {
			j := job{name: fmt.Sprintf("assets-%d", round), stacks: map[int][]solo.Stack{}}
			for i := range accountsOfSide {
				j.stacks[i] = []solo.Stack{{Name: fmt.Sprintf("assets%d-%d", round, i), Template: parameters(1, j.name), Assets: contents(j.name, manyAssets)}}
			}
			return []job{j}
		}, false},
		{fmt.Sprintf("%d independent stacks, %d at a time", manyStacks, atOnce), 0.5, func(round int) []job {
			name := fmt.Sprintf("many-%d", round)
			return []job{one(name, independent(name, parameters(2, name), manyStacks), atOnce)}
		}, false},
		{fmt.Sprintf("%d independent stacks that wait, %d at a time", manyStacks, atOnce), 0, func(round int) []job {
			name := fmt.Sprintf("waiting-%d", round)
			return []job{one(name, independent(name, solo.Waiting(name), manyStacks), atOnce)}
		}, true},
	}
}

// deployments measures every case, both sides alternating.
func (b *bench) deployments(ctx context.Context, which string) error {
	_, _ = fmt.Fprintf(b.out, "deployments: %s added to every call of AWS by the bench's own proxy, %d rounds, medians; the app is synthesized already\n", latencyOfAWS, b.rounds)
	if which == "" {
		if err := b.synth(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, c := range deployCases() {
		if !strings.Contains(c.name, which) {
			continue
		}
		rounds := b.rounds
		if c.waits {
			rounds = 1
		}
		seen := map[string][]deployed{}
		for round := range rounds {
			for _, side := range []string{sideCLI, sideAphex} {
				got, err := b.round(ctx, c, round, side)
				if err != nil {
					return err
				}
				seen[side] = append(seen[side], got)
			}
		}
		errs = append(errs, b.report(c, seen))
	}
	return errors.Join(errs...)
}

// synthesized is an app of the conformance matrix in TypeScript.
const synthesized = "shop"

// synth says how long an app takes to become the assembly that all else begins
// with.
func (b *bench) synth(ctx context.Context) error {
	cli, ours, err := parity.SynthTimes(ctx, synthesized, b.rounds, os.Stderr)
	if err != nil {
		return err
	}
	seconds := func(list []time.Duration) float64 {
		var out []float64
		for _, d := range list {
			out = append(out, d.Seconds())
		}
		return median(out)
	}
	_, _ = fmt.Fprintf(b.out, "synth of app %s in TypeScript, apart: cdk %.2f s, aphex %.2f s, ratio %.3f\n", synthesized, seconds(cli), seconds(ours), seconds(ours)/seconds(cli))
	return nil
}

func (b *bench) round(ctx context.Context, c deployCase, round int, side string) (deployed, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var got deployed
	for _, j := range c.jobs(round) {
		if c.waits {
			wg.Go(func() { b.signal(ctx, j.stacks[0], accounts(side)[0]) })
		}
		var err error
		if got, err = b.deploy(ctx, j, side); err != nil {
			return deployed{}, err
		}
	}
	return got, nil
}

// client asks the emulator itself, beside what is counted and delayed.
func (b *bench) client(account string) *cfnsdk.Client {
	return cfnsdk.NewFromConfig(b.emulator.DirectConfig(account, solo.Region))
}

// creating returns the stacks of the account that are being created.
func creating(ctx context.Context, client *cfnsdk.Client) map[string]bool {
	out := map[string]bool{}
	for pages := cfnsdk.NewDescribeStacksPaginator(client, &cfnsdk.DescribeStacksInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil // and looks again
		}
		for _, s := range page.Stacks {
			if s.StackStatus == "CREATE_IN_PROGRESS" {
				out[awssdk.ToString(s.StackName)] = true
			}
		}
	}
	return out
}

// signal ends each stack length after the harness first saw it work.
func (b *bench) signal(ctx context.Context, stacks []solo.Stack, account string) {
	client, began, done := b.client(account), map[string]time.Time{}, map[string]bool{}
	for ctx.Err() == nil && len(done) < len(stacks) {
		for name := range creating(ctx, client) {
			if began[name].IsZero() {
				began[name] = time.Now()
			}
			if !done[name] && time.Since(began[name]) >= b.length && solo.Signal(ctx, client, name) == nil {
				done[name] = true
			}
		}
		pause(ctx)
	}
}

// pause is the time between two looks of the harness.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
}

// report says what was seen. Only a missed aim is an error.
func (b *bench) report(c deployCase, seen map[string][]deployed) error {
	seconds := map[string]float64{}
	calls := map[string]map[string]int{}
	for side, list := range seen {
		var took []float64
		for _, d := range list {
			took = append(took, d.took.Seconds())
		}
		seconds[side], calls[side] = median(took), list[len(list)-1].calls
	}
	ratio := seconds[sideAphex] / seconds[sideCLI]
	met := ratio <= c.aim
	_, _ = fmt.Fprintf(b.out, "\n%s: cdk %.2f s, aphex %.2f s, ratio %.3f", c.name, seconds[sideCLI], seconds[sideAphex], ratio)
	if c.waits {
		turns := float64(manyStacks) / atOnce
		over := func(side string) float64 { return seconds[side]/turns - b.length.Seconds() }
		met = over(sideAphex) <= aimOverhead.Seconds()
		_, _ = fmt.Fprintf(b.out, "; beyond the %s of each stack: cdk %.2f s, aphex %.2f s (aim %s: %s)\n", b.length, over(sideCLI), over(sideAphex), aimOverhead, verdict(met))
	} else {
		_, _ = fmt.Fprintf(b.out, " (aim %.2f: %s)\n", c.aim, verdict(met))
	}
	more := b.compareCalls(calls)
	var errs []error
	if !met {
		errs = append(errs, fmt.Errorf("%s: the aim was missed", c.name))
	}
	if len(more) > 0 {
		errs = append(errs, fmt.Errorf("%s: more calls than the command line: %s", c.name, strings.Join(more, ", ")))
	}
	return errors.Join(errs...)
}

// excepted are calls that aphex may make more of: it makes sure that it is in
// the right account, and looks before it creates. Events it may read more often
// as long as it does not look at stacks more often altogether: the command line
// asks for stack and events apart.
func excepted(operation string, calls map[string]map[string]int) bool {
	looks := func(side string) int {
		return calls[side]["cloudformation DescribeStacks"] + calls[side]["cloudformation DescribeStackEvents"]
	}
	if operation == "cloudformation DescribeStackEvents" {
		return looks(sideAphex) <= looks(sideCLI)
	}
	return slices.Contains([]string{"sts GetCallerIdentity", "cloudformation DescribeStacks", "cloudformation DescribeChangeSet"}, operation)
}

// compareCalls prints the calls of both sides and returns the operations of
// which aphex makes more.
func (b *bench) compareCalls(calls map[string]map[string]int) []string {
	all := maps.Clone(calls[sideCLI])
	maps.Copy(all, calls[sideAphex])
	var more []string
	total := map[string]int{}
	for _, operation := range slices.Sorted(maps.Keys(all)) {
		cli, ours := calls[sideCLI][operation], calls[sideAphex][operation]
		total[sideCLI] += cli
		total[sideAphex] += ours
		remark := ""
		if ours > cli {
			if remark = "more"; excepted(operation, calls) {
				remark = "more, excepted"
			} else {
				more = append(more, fmt.Sprintf("%s %d instead of %d", operation, ours, cli))
			}
		}
		_, _ = fmt.Fprintf(b.out, "  %-45s cdk %4d  aphex %4d  %s\n", operation, cli, ours, remark)
	}
	_, _ = fmt.Fprintf(b.out, "  %-45s cdk %4d  aphex %4d\n", "all", total[sideCLI], total[sideAphex])
	return more
}

const (
	stacksInMemory = 50
	// aimMemory is in KiB.
	aimMemory = 200 << 10
)

// memory weighs a process that deploys fifty stacks at once, which all wait.
func (b *bench) memory(ctx context.Context) error {
	names, stacks := map[string][]string{}, independent("weighed", solo.Waiting("1"), stacksInMemory)
	account := accounts(sideAphex)[0]
	for i, s := range stacks { // more than one environment may do at a time
		environment := fmt.Sprintf("env%d", i%2)
		names[environment] = append(names[environment], s.Name)
	}
	dir := filepath.Join(b.dir, "memory")
	if err := errors.Join(os.MkdirAll(dir, 0o750), solo.Assembly(filepath.Join(dir, "assembly"), account, solo.Region, stacks)); err != nil {
		return err
	}
	process, err := solo.Start(ctx, solo.Spec{
		Dir: filepath.Join(dir, "state"), Config: solo.Config(solo.Region, stacksInMemory/2, map[string]string{"env0": account, "env1": account}, names),
		Environment: "env0", Beside: []string{"env1"}, Assembly: filepath.Join(dir, "assembly"), Endpoint: b.proxy.URL(), TemplateEndpoint: b.emulator.DirectEndpoint(),
		Account: aws.AccountTools, Region: solo.Region, Run: "weighed",
	})
	if err != nil {
		return err
	}
	signals, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { b.signalTogether(signals, account, stacks) })
	reply, err := process.Wait()
	if err == nil && reply.Phase != "Succeeded" {
		err = errors.New(reply.Message)
	}
	if err != nil {
		return err
	}
	met := reply.PeakKiB <= aimMemory
	_, _ = fmt.Fprintf(b.out, "\nmemory: %d stacks at once, most resident %.1f MiB (aim %d MiB: %s)\n", stacksInMemory, float64(reply.PeakKiB)/1024, aimMemory>>10, verdict(met))
	if !met {
		return fmt.Errorf("the peak of memory is %d KiB", reply.PeakKiB)
	}
	return nil
}

// signalTogether ends the stacks once all of them are being created.
func (b *bench) signalTogether(ctx context.Context, account string, stacks []solo.Stack) {
	client, done := b.client(account), map[string]bool{}
	for ctx.Err() == nil && len(creating(ctx, client)) < len(stacks) {
		pause(ctx)
	}
	for ctx.Err() == nil && len(done) < len(stacks) {
		for _, s := range stacks {
			if !done[s.Name] && solo.Signal(ctx, client, s.Name) == nil {
				done[s.Name] = true
			}
		}
	}
}
