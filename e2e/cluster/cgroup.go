package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cgroupRoot is where control group hierarchies are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchies returns the mount points of the control group hierarchies: one
// with cgroup v2, one per controller with v1.
func hierarchies() ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range mounts {
		if (m.kind == "cgroup" || m.kind == "cgroup2") && (m.point == cgroupRoot || strings.HasPrefix(m.point, cgroupRoot+"/")) {
			found = append(found, m.point)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no control groups are mounted below " + cgroupRoot)
	}
	return found, nil
}

// makeCgroups makes the control group of the cluster's pods in each
// hierarchy, so that the kubelet of one cluster never sees another's pods and
// everything that pods run can be found.
func (l *local) makeCgroups(context.Context) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := delegate(root); err != nil {
			return err
		}
		dir := filepath.Join(root, l.state.Local.Cgroup)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// With v1 a new cpuset is empty and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(filepath.Join(root, file), filepath.Join(dir, file)); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate hands the controllers of a v2 hierarchy down to the groups below
// its root, which the kubelet expects of the group that it is given. With v1
// nothing is to be done.
func delegate(root string) error {
	available, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	control := filepath.Join(root, "cgroup.subtree_control")
	enabled, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(available)) {
		if slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		if err := os.WriteFile(control, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enable control group controller %s below %s: %w; in a container, start it with the host's control groups (--cgroupns=host)", controller, root, err)
		}
	}
	return nil
}

// inherit copies the content of a control file that v1 hierarchies have; with
// v2 the file is missing at the root and nothing is to be done.
func inherit(from, to string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// cgroupDirs returns the cluster's control groups in all hierarchies, the
// deepest first.
func (l *local) cgroupDirs() ([]string, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(root, l.state.Local.Cgroup), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(dirs)
	return dirs, nil
}

// cgroupProcesses returns the processes of the cluster's pods.
func (l *local) cgroupProcesses() ([]process, error) {
	dirs, err := l.cgroupDirs()
	if err != nil {
		return nil, err
	}
	members := map[int]bool{}
	for _, dir := range dirs {
		file, err := os.Open(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if pid, err := strconv.Atoi(lines.Text()); err == nil {
				members[pid] = true
			}
		}
		_ = file.Close()
	}
	return processesWhere(func(pid int) bool { return members[pid] })
}

// removeCgroups removes the cluster's control groups. The kernel may need a
// moment after the last process has ended.
func (l *local) removeCgroups(ctx context.Context) error {
	var last error
	err := poll(ctx, 10*time.Second, 50*time.Millisecond, "removing control groups", func(context.Context) (bool, error) {
		dirs, err := l.cgroupDirs()
		if err != nil {
			return false, err
		}
		last = nil
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = err
			}
		}
		return last == nil, nil
	})
	return errors.Join(err, last)
}
