package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where the ip command keeps named network namespaces.
const netnsDir = "/run/netns"

// makeNetwork makes the network namespace of the cluster. Inside is the
// bridge of the pods, which is the node's address; this machine is on the
// same bridge through a virtual link, so that pods and machine reach each
// other without forwarding. There is no route to anywhere else, so that what
// a pod tries there fails at once.
func (l *local) makeNetwork(ctx context.Context) error {
	s := l.state.Local
	inside := "p" + l.state.ID
	if err := commands(ctx,
		[]string{"ip", "netns", "add", s.Netns},
		[]string{"ip", "link", "add", s.Link, "type", "veth", "peer", "name", inside, "netns", s.Netns},
		[]string{"ip", "address", "add", s.hostAddress() + "/24", "dev", s.Link},
		[]string{"ip", "link", "set", s.Link, "up"},
	); err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, s.Netns), &stat); err != nil {
		return err
	}
	s.NetnsInode = stat.Ino
	if err := l.state.save(); err != nil {
		return err
	}
	in := func(args ...string) []string { return append(l.inNetns(), args...) }
	return commands(ctx,
		in("ip", "link", "set", "lo", "up"),
		in("ip", "link", "add", podLink, "address", s.nodeHardwareAddress(), "type", "bridge"),
		in("ip", "address", "add", s.nodeAddress()+"/24", "dev", podLink),
		in("ip", "link", "set", podLink, "up"),
		in("ip", "link", "set", inside, "master", podLink),
		in("ip", "link", "set", inside, "up"),
		in("ip", "route", "add", serviceNetwork, "dev", podLink),
		in("sysctl", "-qw", "net.ipv4.ip_forward=1"),
	)
}

// inNetns is the command prefix that runs a program in the cluster's network
// namespace, and in no other namespace of its own.
func (l *local) inNetns() []string {
	return []string{"nsenter", "--net=" + filepath.Join(netnsDir, l.state.Local.Netns), "--"}
}

// removeNetwork removes what makeNetwork made, as far as it is there.
func (l *local) removeNetwork(ctx context.Context) error {
	s := l.state.Local
	var problems []error
	if _, err := os.Stat(filepath.Join("/sys/class/net", s.Link)); err == nil {
		problems = append(problems, commands(ctx, []string{"ip", "link", "delete", s.Link}))
	}
	if _, err := os.Stat(filepath.Join(netnsDir, s.Netns)); err == nil {
		problems = append(problems, commands(ctx, []string{"ip", "netns", "delete", s.Netns}))
	}
	return errors.Join(problems...)
}

// commands runs programs one after the other until one fails.
func commands(ctx context.Context, argvs ...[]string) error {
	for _, argv := range argvs {
		if _, err := output(ctx, nil, argv...); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program, optionally with input, and returns its standard
// output. An error tells the command and the last of what it said.
func output(ctx context.Context, input []byte, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return stdout.String(), context.Cause(ctx)
	}
	if err != nil {
		said := strings.TrimSpace(stderr.String() + stdout.String())
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said[max(0, len(said)-2000):])
	}
	return stdout.String(), nil
}
