package worker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aphex-pipeline/aphex/internal/process"
)

const (
	// sweepLimit bounds how long the descendants of a command are hunted.
	// Only one that hangs in the kernel or belongs to root takes that long.
	sweepLimit = 5 * time.Second
	// reapPause gathers the ends of many orphans into one look at the table.
	reapPause = 50 * time.Millisecond
)

// family knows which processes belong to which command, so that none outlives
// its own and none of another dies. A process belongs to a command if
//
//   - it is in the command's session, or
//   - it was started with the command's tag in its environment, which survives
//     setsid and double forks, or
//   - it descends from such a process, or
//   - in a dedicated worker: it is an orphan the worker inherited that nobody
//     else can have started (a daemon that also emptied its environment). If
//     another command that was running when it started still does, it is left
//     until that one ends.
type family struct {
	dedicated bool
	self      int

	// mu also covers every fork, so that a child that ends at once is known
	// before anyone looks for orphans to reap.
	mu       sync.Mutex
	children map[int]*relative
}

// relative is a running command.
type relative struct {
	mark  string
	pid   int
	start uint64
}

func newFamily(dedicated bool) *family {
	return &family{dedicated: dedicated, self: os.Getpid(), children: map[int]*relative{}}
}

// start forks by way of fork and takes the child into the family.
func (f *family) start(mark string, fork func() (*process.Process, error)) (*process.Process, *relative, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := fork()
	if err != nil {
		return nil, nil, err
	}
	r := &relative{mark: mark, pid: p.PID()}
	if row, err := readProc(r.pid); err == nil {
		r.start = row.start
	}
	f.children[r.pid] = r
	return p, r, nil
}

// forget takes a reaped child out of the family.
func (f *family) forget(r *relative) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.children, r.pid)
}

// sweep kills what is left of a command until nothing is, and says what that
// was. The command's own process must not have been reaped yet.
func (f *family) sweep(mark string) string {
	ended := map[string]bool{}
	deadline := time.Now().Add(sweepLimit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		alive := f.find(mark)
		if len(alive) == 0 {
			break
		}
		for _, p := range alive {
			if !time.Now().Before(deadline) {
				return "processes it left running could not be ended: " + describe(alive)
			}
			ended[p.name] = true
			kill(p)
		}
		time.Sleep(pause)
	}
	if len(ended) == 0 {
		return ""
	}
	names := make([]string, 0, len(ended))
	for name := range ended {
		names = append(names, name)
	}
	slices.Sort(names)
	return "processes it left running were ended: " + strings.Join(names, ", ")
}

// describe names the first few processes and counts the others.
func describe(procs []proc) string {
	const limit = 10
	var parts []string
	for _, p := range procs[:min(len(procs), limit)] {
		parts = append(parts, fmt.Sprintf("%s (pid %d)", p.name, p.pid))
	}
	text := strings.Join(parts, ", ")
	if more := len(procs) - limit; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// kill ends a process with its group: a group is killed in one step, which a
// program that forks all the time cannot outrun.
func kill(p proc) {
	now, err := readProc(p.pid)
	if err != nil || now.start != p.start {
		return // the number is somebody else's by now
	}
	if now.group > 1 && now.group != unix.Getpgrp() {
		_ = unix.Kill(-now.group, unix.SIGKILL)
	}
	_ = unix.Kill(p.pid, unix.SIGKILL)
}

// find returns the living processes of a command but for its first.
func (f *family) find(mark string) []proc {
	table, err := processes()
	if err != nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var own *relative
	var others []*relative
	for _, r := range f.children {
		if r.mark == mark {
			own = r
		} else {
			others = append(others, r)
		}
	}
	if own == nil {
		return nil
	}
	known := map[int]bool{f.self: false, own.pid: true}
	for _, r := range others {
		known[r.pid] = false
	}
	var alive []proc
	for _, p := range table {
		if p.pid != own.pid && !p.zombie && f.belongs(table, known, p, own, others) {
			alive = append(alive, p)
		}
	}
	slices.SortFunc(alive, func(a, b proc) int { return a.pid - b.pid })
	return alive
}

// belongs decides about one process; known remembers the answers.
func (f *family) belongs(table map[int]proc, known map[int]bool, p proc, own *relative, others []*relative) bool {
	if answer, ok := known[p.pid]; ok {
		return answer
	}
	known[p.pid] = false // the table is not one moment: guard against a cycle
	answer := p.session == own.pid || marks(p.pid, own.mark)
	if parent, ok := table[p.parent]; !answer && ok {
		answer = f.belongs(table, known, parent, own, others)
	}
	if !answer && f.dedicated && p.parent == f.self {
		answer = !slices.ContainsFunc(others, func(r *relative) bool {
			return p.session == r.pid || r.start <= p.start || marks(p.pid, r.mark)
		})
	}
	known[p.pid] = answer
	return answer
}

// includes reports whether a process is a command's or cannot be told from one:
// it descends from this process, or it is gone.
func (f *family) includes(pid int) bool {
	for range maxDepth {
		if pid == f.self {
			return true
		}
		p, err := readProc(pid)
		if err != nil {
			return true
		}
		if p.parent <= 1 && p.parent != f.self {
			return false
		}
		pid = p.parent
	}
	return true
}

// reap collects orphans that ended. Children of our own are left to whoever
// started them.
func (f *family) reap() {
	table, err := processes()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range table {
		if _, own := f.children[p.pid]; p.parent == f.self && p.zombie && !own {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}
