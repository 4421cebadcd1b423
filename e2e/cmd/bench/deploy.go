package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/solo"
)

const (
	// latencyOfAWS is added to every call by a proxy, for both sides alike.
	latencyOfAWS = 30 * time.Millisecond
	// accountsOfSide are the accounts that each side deploys to.
	accountsOfSide = 3
	sideCLI        = "cdk"
	sideAphex      = "aphex"
)

// accounts are what each side has for itself; both come from AccountTools.
func accounts(side string) []string {
	if side == sideCLI {
		return []string{"222222222222", "333333333333", "444444444444"}
	}
	return []string{"555555555555", "666666666666", "777777777777"}
}

// bench compares deployments by the CDK command line and by aphex.
type bench struct {
	out      io.Writer
	dir      string
	emulator *aws.Emulator
	proxy    *solo.Proxy
	cdk      string
	// length is how long stacks that wait take, rounds how often each case is
	// measured.
	length time.Duration
	rounds int
}

// withEmulator runs measure with an emulator that both sides have accounts in.
func withEmulator(ctx context.Context, out io.Writer, length time.Duration, rounds int, measure func(b *bench) error) (err error) {
	dir, err := os.MkdirTemp("", "aphex-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	emulator, err := aws.Start(ctx, aws.Config{Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emulator.Stop()) }()
	for _, account := range append(accounts(sideCLI), accounts(sideAphex)...) {
		if err := emulator.QuickBootstrap(ctx, account, solo.Region, []string{aws.AccountTools}); err != nil {
			return err
		}
	}
	proxy, err := solo.NewProxy(emulator.DirectEndpoint(), latencyOfAWS)
	if err != nil {
		return err
	}
	defer proxy.Close()
	cdk, err := emulator.CDK(ctx)
	if err != nil {
		return err
	}
	return measure(&bench{out: out, dir: dir, emulator: emulator, proxy: proxy, cdk: cdk, length: length, rounds: rounds})
}

// deployed is one deployment: how long it took, and what AWS was asked.
type deployed struct {
	took  time.Duration
	calls map[string]int
}

// job is one deployment that both sides can do.
type job struct {
	name string
	// stacks are those of each account of a side, by its number.
	stacks      map[int][]solo.Stack
	concurrency int
}

// assembly writes the app of a side and returns its folder.
func (b *bench) assembly(j job, side string) (string, error) {
	var stacks []solo.Stack
	for i, account := range accounts(side) {
		for _, s := range j.stacks[i] {
			s.Account = account
			stacks = append(stacks, s)
		}
	}
	dir := filepath.Join(b.dir, j.name, side)
	return dir, solo.Assembly(dir, accounts(side)[0], solo.Region, stacks)
}

// deploy does a job and measures it.
func (b *bench) deploy(ctx context.Context, j job, side string) (deployed, error) {
	dir, err := b.assembly(j, side)
	if err != nil {
		return deployed{}, err
	}
	b.proxy.Take()
	began := time.Now()
	if side == sideCLI {
		err = b.command(ctx, dir, "deploy", "--all", "--app", dir, "--require-approval", "never", "--progress", "events", "--concurrency", strconv.Itoa(max(1, j.concurrency)))
	} else {
		err = b.stages(ctx, j, dir)
	}
	if err != nil {
		return deployed{}, fmt.Errorf("%s, %s: %w", j.name, side, err)
	}
	return deployed{time.Since(began), b.proxy.Take()}, nil
}

// command runs the CDK command line.
func (b *bench) command(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, b.cdk, append([]string{"--no-notices", "--no-color"}, args...)...)
	cmd.Env = append(b.emulator.Environment(b.proxy.URL(), aws.AccountTools, solo.Region), "AWS_ENDPOINT_URL_S3_FOR_CLOUDFORMATION="+b.emulator.DirectEndpoint())
	cmd.Dir = filepath.Dir(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cdk %s: %w\n%s", args[0], err, out.String())
	}
	return nil
}

// stages runs aphex's deploy stage for one account after the other, each in a
// process of its own.
func (b *bench) stages(ctx context.Context, j job, dir string) error {
	environments, names := map[string]string{}, map[string][]string{}
	for i, account := range accounts(sideAphex) {
		for _, s := range j.stacks[i] {
			name := fmt.Sprintf("env%d", i)
			environments[name], names[name] = account, append(names[name], s.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(environments)) {
		process, err := solo.Start(ctx, solo.Spec{
			Dir: dir + "-state", Config: solo.Config(solo.Region, j.concurrency, environments, names), Environment: name, Assembly: dir,
			Endpoint: b.proxy.URL(), TemplateEndpoint: b.emulator.DirectEndpoint(), Account: aws.AccountTools, Region: solo.Region, Run: strings.ReplaceAll(j.name, " ", "-"),
		})
		if err != nil {
			return err
		}
		reply, err := process.Wait()
		if err == nil && reply.Phase != "Succeeded" {
			err = errors.New(reply.Message)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
