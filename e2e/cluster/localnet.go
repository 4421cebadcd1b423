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

// forwardingFile switches forwarding between this machine's links.
const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

// makeNetwork makes the network namespace of the cluster. Inside is the
// bridge of the pods, which is the node's address; this machine is on the
// same bridge through a virtual link, so that pods and machine reach each
// other without forwarding.
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
	if err := commands(ctx,
		in("ip", "link", "set", "lo", "up"),
		in("ip", "link", "add", podLink, "type", "bridge"),
		in("ip", "address", "add", s.nodeAddress()+"/24", "dev", podLink),
		in("ip", "link", "set", podLink, "up"),
		in("ip", "link", "set", inside, "master", podLink),
		in("ip", "link", "set", inside, "up"),
		in("ip", "route", "add", "default", "via", s.hostAddress()),
		in("sysctl", "-qw", "net.ipv4.ip_forward=1"),
	); err != nil {
		return err
	}
	if !s.Egress {
		return nil
	}
	return l.openEgress(ctx)
}

// inNetns is the command prefix that runs a program in the cluster's network
// namespace, and in no other namespace of its own.
func (l *local) inNetns() []string {
	return []string{"nsenter", "--net=" + filepath.Join(netnsDir, l.state.Local.Netns), "--"}
}

// openEgress lets pods reach what this machine reaches.
func (l *local) openEgress(ctx context.Context) error {
	forwarding, err := os.ReadFile(forwardingFile)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(forwarding)) == "0" {
		l.state.Local.ForwardingWasOff = true
		if err := l.state.save(); err != nil {
			return err
		}
		if err := os.WriteFile(forwardingFile, []byte("1\n"), 0o644); err != nil {
			return err
		}
	}
	for _, rule := range l.egressRules() {
		if err := commands(ctx, iptables("-I", rule)); err != nil {
			return err
		}
	}
	return nil
}

// egressRules are the packet filter rules of Config.Egress: table, chain and
// what matches.
func (l *local) egressRules() [][]string {
	s := l.state.Local
	return [][]string{
		{"nat", "POSTROUTING", "-s", s.network(), "!", "-o", s.Link, "-j", "MASQUERADE"},
		{"filter", "FORWARD", "-i", s.Link, "-j", "ACCEPT"},
		{"filter", "FORWARD", "-o", s.Link, "-j", "ACCEPT"},
	}
}

// iptables is the command that does op, such as -I, with a rule.
func iptables(op string, rule []string) []string {
	return append([]string{"iptables", "-w", "10", "-t", rule[0], op, rule[1]}, rule[2:]...)
}

// removeNetwork removes what makeNetwork made, as far as it is there.
func (l *local) removeNetwork(ctx context.Context) error {
	s := l.state.Local
	var problems []error
	if s.Egress {
		for _, rule := range l.egressRules() {
			for commands(ctx, iptables("-C", rule)) == nil {
				if err := commands(ctx, iptables("-D", rule)); err != nil {
					problems = append(problems, err)
					break
				}
			}
		}
		if s.ForwardingWasOff {
			problems = append(problems, os.WriteFile(forwardingFile, []byte("0\n"), 0o644))
		}
	}
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
