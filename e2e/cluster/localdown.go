package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where programs keep files about the cluster outside its own directories.
const (
	containerLogLinks = "/var/log/containers"
	networkResults    = "/var/lib/cni/results"
)

// down removes what the state describes. Every step can be repeated and finds
// what it removes by names and marks of this cluster alone.
func (l *local) down(ctx context.Context) error {
	if l.state.ID == "" || l.state.Local.Netns == "" {
		return errors.New("the description of the cluster is incomplete")
	}
	if err := errors.Join(
		l.stopProcesses(ctx),
		l.removeShimSockets(),
		unmountBelow(l.state.Dir, l.state.Local.RunDir),
		l.removeNetwork(ctx),
		l.removeCgroups(ctx),
		l.removeFiles(),
		l.verifyGone(),
	); err != nil {
		return err
	}
	return l.state.forget()
}

// stopProcesses ends the components, then everything that is still in the
// cluster's network namespace (containerd's shims among it) or control
// groups (the containers). After a reboot nothing of them can be left, and
// numbers and start times mean nothing.
func (l *local) stopProcesses(ctx context.Context) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if boot != l.state.BootID {
		return nil
	}
	// Kubernetes first, so that nothing starts what is being stopped. None of
	// the cluster's data is kept, so nobody needs time to save anything.
	if err := stop(ctx, l.state.Local.Processes); err != nil {
		return err
	}
	return poll(ctx, 20*time.Second, processPoll, "the end of pods", func(ctx context.Context) (bool, error) {
		left, err := l.processes()
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		return false, stop(ctx, left)
	})
}

// processes returns every living process of the cluster. Those of the network
// namespace count only while it has its name: afterwards the kernel gives its
// number to the next one, which may be another cluster's.
func (l *local) processes() ([]process, error) {
	found, err := l.cgroupProcesses()
	if err != nil || l.state.Local.NetnsInode == 0 {
		return found, err
	}
	var named unix.Stat_t
	if unix.Stat(filepath.Join(netnsDir, l.state.Local.Netns), &named) != nil || named.Ino != l.state.Local.NetnsInode {
		return found, err
	}
	inside, err := processesWhere(func(pid int) bool {
		link, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
		return err == nil && link == fmt.Sprintf("net:[%d]", l.state.Local.NetnsInode)
	})
	return append(found, inside...), err
}

// removeShimSockets removes the sockets of containerd's shims, which are in a
// directory that all containerds of the machine share.
func (l *local) removeShimSockets() error {
	var problems []error
	files, err := filepath.Glob(l.state.path("containerd", "state", "io.containerd.runtime.v2.task", "*", "*", "address"))
	if err != nil {
		return err
	}
	for _, file := range files {
		address, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		socket := strings.TrimPrefix(string(bytes.TrimSpace(address)), "unix://")
		if !strings.HasPrefix(socket, "/run/containerd/s/") {
			continue
		}
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// removeFiles removes the cluster's files, except its logs and description.
// Nothing is removed below a mount.
func (l *local) removeFiles() error {
	mounts, err := mountsBelow(l.state.Dir, l.state.Local.RunDir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("files are kept because of mounts below them: %s", strings.Join(mounts, ", "))
	}
	var problems []error
	for _, name := range []string{"containerd", "containerd.toml", "cni", "etcd", "images", "kubelet", "kubelet.yaml", "pki", "kubeconfig"} {
		problems = append(problems, os.RemoveAll(l.state.path(name)))
	}
	problems = append(problems, os.RemoveAll(l.state.Local.RunDir), l.removeStrayFiles())
	return errors.Join(problems...)
}

// removeStrayFiles removes links to the logs of the cluster's pods and the
// network plugins' notes about them.
func (l *local) removeStrayFiles() error {
	var problems []error
	links, err := filepath.Glob(filepath.Join(containerLogLinks, "*.log"))
	if err != nil {
		return err
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, l.state.logs()+"/") {
			problems = append(problems, os.Remove(link))
		}
	}
	notes, err := filepath.Glob(filepath.Join(networkResults, l.networkName()+"-*"))
	if err != nil {
		return err
	}
	for _, note := range notes {
		// Pods have a note for the loopback interface besides, under a name
		// that all clusters share.
		pod := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(note), l.networkName()+"-"), "-eth0")
		problems = append(problems, os.Remove(note), os.RemoveAll(filepath.Join(networkResults, "cni-loopback-"+pod+"-lo")))
	}
	return errors.Join(problems...)
}

// verifyGone returns an error that lists what is still there.
func (l *local) verifyGone() error {
	var left []string
	if processes, err := l.processes(); err != nil {
		return err
	} else if len(processes) > 0 {
		left = append(left, "processes "+describe(processes))
	}
	mounts, err := mountsBelow(l.state.Dir, l.state.Local.RunDir, filepath.Join(netnsDir, l.state.Local.Netns))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		left = append(left, "mounts "+strings.Join(mounts, ", "))
	}
	var stat unix.Stat_t
	if unix.Stat(filepath.Join("/sys/class/net", l.state.Local.Link), &stat) == nil {
		left = append(left, "the network link "+l.state.Local.Link)
	}
	if len(left) > 0 {
		return errors.New("still there: " + strings.Join(left, "; "))
	}
	return nil
}
