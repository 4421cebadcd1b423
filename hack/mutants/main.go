// Command mutants breaks the code on purpose, one stored patch at a time, and
// sees that the test which the patch names fails. A patch that no test notices
// is a promise that nothing keeps.
//
// The patches lie in hack/mutants/testdata. Above the difference each says what
// it breaks and which test is to fail:
//
//	Property 9: the stacks of an app are put together, in no order.
//	Red: tasks/deploy TestGroups_KeepTheConfiguredOrder
//
// The checkout is never changed: the compiler is given the patched files as an
// overlay.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	patches = "hack/mutants/testdata"
	// survived is the verdict on a mutant that no test noticed.
	survived = "SURVIVED"
)

// settings are the flags.
type settings struct {
	only  string
	some  int
	check bool
}

func main() {
	var s settings
	flag.StringVar(&s.only, "only", "", "pattern of the patches' names")
	flag.IntVar(&s.some, "some", 0, "run so many of them, others each day; 0 is all")
	flag.BoolVar(&s.check, "check", false, "only see that every patch fits the code")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, s)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, s settings) error {
	mutants, err := choose(s)
	if err != nil {
		return err
	}
	began, unnoticed := time.Now(), 0
	for _, name := range mutants {
		m, err := load(name)
		if err != nil {
			return err
		}
		verdict := "fits"
		err = m.within(ctx, func(overlay string) error {
			if s.check {
				return nil
			}
			verdict, err = m.run(ctx, overlay)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if verdict == survived {
			unnoticed++
		}
		if _, err := fmt.Fprintf(out, "%-28s %-40s %s\n", verdict, strings.TrimSuffix(filepath.Base(name), ".patch"), m.breaks); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(out, "%d mutants in %s, %d survived\n", len(mutants), time.Since(began).Round(time.Second), unnoticed); err != nil {
		return err
	}
	if unnoticed > 0 {
		return errors.New("no test noticed what is broken")
	}
	return nil
}

// choose returns the files of the patches to run.
func choose(s settings) ([]string, error) {
	pattern, err := regexp.Compile(s.only)
	if err != nil {
		return nil, err
	}
	all, err := filepath.Glob(filepath.Join(patches, "*.patch"))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(name string) bool { return !pattern.MatchString(filepath.Base(name)) })
	if len(all) == 0 {
		return nil, fmt.Errorf("no patch in %s fits %q", patches, s.only)
	}
	if s.some == 0 || s.some >= len(all) {
		return all, nil
	}
	const day = 24 * time.Hour
	first := int(time.Now().Unix()/int64(day.Seconds())) * s.some
	var some []string
	for n := range s.some {
		some = append(some, all[(first+n)%len(all)])
	}
	return some, nil
}

// mutant is one patch.
type mutant struct {
	breaks    string   // what it breaks, for people
	dir, test string   // the package's folder, and the test that is to fail
	files     []string // what it changes, from the root of the module
	text      []byte
}

func load(name string) (mutant, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{text: text}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if file, ok := strings.CutPrefix(line, "--- a/"); ok {
			m.files = append(m.files, file)
		} else if test, ok := strings.CutPrefix(line, "Red: "); ok {
			m.dir, m.test, _ = strings.Cut(test, " ")
		} else if m.breaks == "" {
			m.breaks = line
		}
	}
	if m.test == "" || len(m.files) == 0 {
		return mutant{}, fmt.Errorf("%s names no test (Red: folder Test) or changes no file", name)
	}
	return m, nil
}

// within applies the patch to copies of its files and calls do with the
// compiler's overlay of them.
func (m mutant) within(ctx context.Context, do func(overlay string) error) (err error) {
	dir, err := os.MkdirTemp("", "aphex-mutant-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	replaced := map[string]string{}
	for _, name := range m.files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		copied := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(copied, text, 0o600); err != nil { //nolint:gosec // below a folder of our own; git refuses names that leave it
			return err
		}
		original, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		replaced[original] = copied
	}
	apply := exec.CommandContext(ctx, "git", "apply", "-")
	apply.Dir, apply.Stdin = dir, bytes.NewReader(m.text)
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if said, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("the patch does not fit the code any more; make it anew: %s", bytes.TrimSpace(said))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	return do(file)
}

// run runs the test that is to fail and says how it went.
func (m mutant) run(ctx context.Context, overlay string) (string, error) {
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-count=1", "-timeout=20m", "-run", "^"+m.test+"$", "./"+m.dir)
	cmd.Env = append(os.Environ(), "APHEX_REQUIRE=cluster,emulator,images") // a test that is skipped notices nothing
	said, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil && bytes.Contains(said, []byte("[no tests to run]")):
		return "", fmt.Errorf("%s has no test %s", m.dir, m.test)
	case err == nil:
		return survived, nil
	case !bytes.Contains(said, []byte("--- FAIL: "+m.test)):
		return "", fmt.Errorf("%s did not fail but ended otherwise: %.2000s", m.test, said)
	}
	return fmt.Sprintf("noticed in %.1f s", time.Since(began).Seconds()), nil
}
