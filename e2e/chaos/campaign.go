package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Campaign makes many runs and keeps what came of them, so that one that was
// cut short goes on where it was.
type Campaign struct {
	// File holds a line of JSON per result; empty to keep none. What is in it
	// is not made again, except runs whose boundary was not reached.
	File string
	// Parallel is how many runs are made at a time.
	Parallel int
	// Log receives a line per run.
	Log io.Writer

	mu      sync.Mutex
	results map[string]Result
}

// Run makes all cases and returns the results of all, earlier ones included,
// by name. A case whose harness fails is tried once more; then it is an error.
func (c *Campaign) Run(ctx context.Context, h *Harness, cases []Case) (map[string]Result, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(c.Parallel, 1))
	for i, one := range cases {
		if known, ok := c.results[one.Name]; ok && known.Verdict != Missed {
			continue
		}
		group.Go(func() error {
			result, err := h.Run(ctx, one)
			if err != nil && ctx.Err() == nil {
				_, _ = fmt.Fprintf(c.Log, "%s: the harness failed, once more: %v\n", one.Name, err)
				result, err = h.Run(ctx, one)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", one.Name, err)
			}
			return c.add(result, i+1, len(cases))
		})
	}
	err := group.Wait()
	wanted := map[string]Result{}
	for _, one := range cases {
		if result, ok := c.results[one.Name]; ok {
			wanted[one.Name] = result
		}
	}
	return wanted, err
}

func (c *Campaign) load() error {
	c.results = map[string]Result{}
	if c.File == "" {
		return nil
	}
	file, err := os.Open(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("read %s: %w", c.File, err)
		}
		c.results[r.Case] = r
	}
	return lines.Err()
}

func (c *Campaign) add(r Result, nth, of int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results[r.Case] = r
	note := ""
	if r.Retried {
		note = " after one retry (" + r.First + ")"
	}
	if r.Why != "" {
		note += ": " + r.Why
	}
	_, _ = fmt.Fprintf(c.Log, "%s %3d/%d %-7s %5.1f s  %s%s\n", time.Now().Format(time.TimeOnly), nth, of, r.Verdict, r.Seconds, r.Case, note)
	if c.File == "" {
		return nil
	}
	file, err := os.OpenFile(c.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(file).Encode(r), file.Close())
}

// Report writes the histogram and the sum of the results, and whether all of
// them are as they have to be.
func Report(out io.Writer, results map[string]Result) (good bool) {
	verdicts := []Verdict{OK, Lost, Doubled, Stuck, Missed}
	groups, sum := map[string]map[Verdict]int{}, map[Verdict]int{}
	retried := map[string]int{}
	for _, r := range results {
		if groups[r.Group] == nil {
			groups[r.Group] = map[Verdict]int{}
		}
		groups[r.Group][r.Verdict]++
		sum[r.Verdict]++
		if r.Retried {
			retried[r.Group]++
		}
	}
	_, _ = fmt.Fprintf(out, "%-32s %5s %5s %5s %8s %6s %7s\n", "killed", "ok", "retry", "lost", "doubled", "stuck", "missed")
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		n := groups[group]
		_, _ = fmt.Fprintf(out, "%-32s %5d %5d %5d %8d %6d %7d\n", group, n[OK], retried[group], n[Lost], n[Doubled], n[Stuck], n[Missed])
	}
	total := 0
	for _, v := range verdicts[:4] {
		total += sum[v]
	}
	if sum[Missed] > 0 {
		_, _ = fmt.Fprintf(out, "%d more did not reach their boundary\n", sum[Missed])
	}
	_, _ = fmt.Fprintf(out, "%d runs, %d lost, %d doubled, %d stuck\n", total, sum[Lost], sum[Doubled], sum[Stuck])
	return sum[Lost]+sum[Doubled]+sum[Stuck] == 0
}
