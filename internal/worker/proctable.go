package worker

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
)

// proc is one row of the kernel's process table.
type proc struct {
	pid, parent, group, session int
	name                        string
	zombie                      bool
	start                       uint64 // clock ticks since boot
}

// processes reads the table. Rows that vanish meanwhile are left out.
func processes() (map[int]proc, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	table := map[int]proc{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readProc(pid); err == nil {
			table[pid] = p
		}
	}
	return table, nil
}

var errStat = errors.New("unexpected format of /proc/<pid>/stat")

// readProc reads one row. Source: proc_pid_stat(5).
func readProc(pid int) (proc, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, err
	}
	// The name is in parentheses and may itself hold any of them.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return proc{}, errStat
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 {
		return proc{}, errStat
	}
	p := proc{pid: pid, name: string(data[open+1 : end]), zombie: fields[0] == "Z" || fields[0] == "X"}
	for i, to := range []*int{&p.parent, &p.group, &p.session} {
		if *to, err = strconv.Atoi(fields[1+i]); err != nil {
			return proc{}, errStat
		}
	}
	if p.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return proc{}, errStat
	}
	return p, nil
}

// marks reports whether the process was started with mark in its environment.
func marks(pid int, mark string) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	want := []byte(markVar + "=" + mark)
	for kv := range bytes.SplitSeq(data, []byte{0}) {
		if bytes.Equal(kv, want) {
			return true
		}
	}
	return false
}
