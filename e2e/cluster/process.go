package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processPoll is how often waiting for the end of processes looks again.
const processPoll = 20 * time.Millisecond

// killWait bounds the wait for killed processes: the kernel ends a process
// only once it leaves a call that cannot be interrupted, such as one to a
// busy disk.
const killWait = 15 * time.Second

// process identifies one process beyond the life of its number: numbers are
// used again, the pair of number and start time is not within one boot.
type process struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Start is field 22 of /proc/<pid>/stat: clock ticks since boot.
	Start uint64 `json:"start"`
}

// identify returns the identity of the living process pid.
func identify(name string, pid int) (process, error) {
	start, _, err := procStat(pid)
	if err != nil {
		return process{}, err
	}
	return process{Name: name, PID: pid, Start: start}, nil
}

// alive reports whether exactly this process is still there and not merely
// waiting to be collected by its parent.
func (p process) alive() bool {
	start, state, err := procStat(p.PID)
	return err == nil && start == p.Start && state != "Z" && state != "X"
}

// signal sends sig to the process, and to no other that has its number now:
// the descriptor is opened first, then the start time is compared. A process
// that is gone is not an error.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) { // the latter while it ends, since Linux 6.15
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d (%s): %w", p.PID, p.Name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !p.alive() {
		return nil
	}
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d (%s): %w", p.PID, p.Name, err)
	}
	return nil
}

// stop ends the processes with SIGKILL and waits for their end. On return
// without an error none of them lives.
func stop(ctx context.Context, processes []process) error {
	var problems []error
	for _, p := range processes {
		problems = append(problems, p.signal(unix.SIGKILL))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	err := poll(ctx, killWait, processPoll, "the end of processes", func(context.Context) (bool, error) {
		return len(living(processes)) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w: still there: %s", err, describe(living(processes)))
	}
	return nil
}

// living returns those of the processes that are alive.
func living(processes []process) []process {
	var found []process
	for _, p := range processes {
		if p.alive() {
			found = append(found, p)
		}
	}
	return found
}

// describe lists processes for a message.
func describe(processes []process) string {
	words := make([]string, 0, len(processes))
	for _, p := range processes {
		words = append(words, fmt.Sprintf("%d (%s)", p.PID, p.Name))
	}
	return strings.Join(words, ", ")
}

// procStat returns start time and state letter of a process.
func procStat(pid int) (start uint64, state string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", err
	}
	// The second field, the name in parentheses, may hold anything.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err
}

// bootID names the running boot of this machine.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// processesWhere returns every process of the machine but this one for which
// match holds. Those that end while it looks are left out.
func processesWhere(match func(pid int) bool) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || !match(pid) {
			continue
		}
		comm, err := os.ReadFile("/proc/" + entry.Name() + "/comm")
		if err != nil {
			continue
		}
		if p, err := identify(strings.TrimSpace(string(comm)), pid); err == nil && p.alive() {
			found = append(found, p)
		}
	}
	return found, nil
}

// poll calls done every interval until it returns true or an error, at most
// for the time given.
func poll(ctx context.Context, within, interval time.Duration, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("%s took longer than %s", what, within))
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
