package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

const (
	aimReady = time.Second
	// aimRSS is in KiB.
	aimRSS = 40 << 10
	// settle is how long a sidecar has had nothing to do when it is weighed.
	settle = 20 * time.Second
	// ticksPerSecond is USER_HZ, in which /proc counts.
	ticksPerSecond = 100
)

// look is what is asked of the sidecar's container: its first process is the
// plugin. Clock and uptime give the time at which it was started.
const look = `date +%s.%N; cat /proc/uptime /proc/1/stat; grep -E '^(VmRSS|RssAnon|RssFile):' /proc/1/status`

var numbers = regexp.MustCompile(`(VmRSS|RssAnon|RssFile):\s+([0-9]+) kB`)

// sidecar measures a plugin that has run a stage and then idles.
func sidecar(ctx context.Context, out io.Writer, l *lab.Lab, manifest string) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	run, err := l.SubmitManifest(ctx, []byte(manifest))
	if err != nil {
		return err
	}
	if _, err := run.Until(ctx, "the first stage has ended", func(s lab.Status) bool { return s.Node("s0").Phase == "Succeeded" }); err != nil {
		return err
	}
	idle := time.Now().Add(settle)
	if _, err := run.Until(ctx, "the plugin has been idle", func(lab.Status) bool { return time.Now().After(idle) }); err != nil {
		return err
	}
	seen, err := run.InSidecar(ctx, "sh", "-c", look)
	if err != nil {
		return err
	}
	started, err := startOf(seen)
	if err != nil {
		return err
	}
	log, err := run.Log(ctx)
	if err != nil {
		return err
	}
	ready, err := readyAt(log)
	if err != nil {
		return err
	}
	took, kib := ready.Sub(started), map[string]int{}
	for _, m := range numbers.FindAllStringSubmatch(seen, -1) {
		if kib[m[1]], err = strconv.Atoi(m[2]); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "sidecar: start to ready %.2f s (aim %s: %s); idle RSS %.1f MiB, anonymous %.1f, of files %.1f (aim %d MiB: %s)\n",
		took.Seconds(), aimReady, verdict(took <= aimReady),
		float64(kib["VmRSS"])/1024, float64(kib["RssAnon"])/1024, float64(kib["RssFile"])/1024, aimRSS>>10, verdict(kib["VmRSS"] <= aimRSS))
	_, err = l.Kubectl(ctx, nil, "delete", "workflow", run.Name, "-n", run.Namespace, "--wait=false")
	return err
}

// startOf reads when process 1 was started, to the hundredth of a second.
func startOf(seen string) (time.Time, error) {
	lines := strings.Split(seen, "\n")
	if len(lines) < 3 {
		return time.Time{}, fmt.Errorf("the container answered %q", seen)
	}
	now, errNow := strconv.ParseFloat(lines[0], 64)
	uptime, errUptime := strconv.ParseFloat(strings.Fields(lines[1] + " ")[0], 64)
	// The second field is the command in parentheses; starttime is the 22nd.
	fields := strings.Fields(lines[2][strings.LastIndexByte(lines[2], ')')+1:])
	if err := errors.Join(errNow, errUptime); err != nil || len(fields) < 20 {
		return time.Time{}, fmt.Errorf("the container answered %q: %w", seen, err)
	}
	ticks, err := strconv.ParseFloat(fields[19], 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(int64((now - uptime + ticks/ticksPerSecond) * 1e6)), nil
}

// readyAt finds when the plugin said that it was ready.
func readyAt(log string) (time.Time, error) {
	for line := range strings.Lines(log) {
		var entry struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "plugin ready" {
			return entry.Time, nil
		}
	}
	return time.Time{}, errors.New("the sidecar's log does not say when it was ready")
}
