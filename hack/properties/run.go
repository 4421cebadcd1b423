package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// result is what came of a test.
type result struct {
	verdict    string // "ok", "FAIL" or "skipped"; empty if it did not run
	iterations int    // inputs drawn; otherwise cases without cases of their own
}

// event is a line of go test -json.
type event struct {
	Action string `json:"Action"`
	Test   string `json:"Test"`
	Output string `json:"Output"`
}

// test runs the proofs of all properties, one package at a time, and returns
// the results by folder and name.
func test(ctx context.Context, progress io.Writer, properties []property, unit bool) (map[proof]result, error) {
	packages := map[string][]proof{}
	for _, p := range properties {
		for _, one := range p.proofs {
			if (!unit || one.kind != kindEndToEnd) && !slices.Contains(packages[one.dir], one) {
				packages[one.dir] = append(packages[one.dir], one)
			}
		}
	}
	results := map[proof]result{}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if _, err := fmt.Fprintf(progress, "%s: %d tests\n", dir, len(packages[dir])); err != nil {
			return nil, err
		}
		if err := testPackage(ctx, progress, packages[dir], results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// testPackage runs proofs of one package.
func testPackage(ctx context.Context, progress io.Writer, proofs []proof, results map[proof]result) error {
	names := make([]string, 0, len(proofs))
	for _, one := range proofs {
		names = append(names, one.name)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=60m", "-run", "^("+strings.Join(names, "|")+")$", "./"+proofs[0].dir)
	cmd.Env = append(os.Environ(), "APHEX_REQUIRE=cluster,emulator,images")
	cmd.Stderr = progress
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	seen, output, readErr := read(out)
	failed := cmd.Wait()
	if readErr != nil {
		return readErr
	}
	for _, one := range proofs {
		results[one] = seen[one.name]
	}
	if failed != nil {
		_, err = io.WriteString(progress, output)
	}
	return err
}

// read follows the tests of one package to their end.
func read(out io.Reader) (map[string]result, string, error) {
	verdicts := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "skipped"}
	drawn := regexp.MustCompile(`\[rapid\] OK, passed (\d+) tests`)
	results := map[string]result{}
	parents := map[string]bool{}
	cases, draws := map[string]int{}, map[string]int{}
	var text strings.Builder
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, "", err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			continue // go itself speaks, about a package that cannot be built for example
		}
		text.WriteString(e.Output)
		top, _, _ := strings.Cut(e.Test, "/")
		if match := drawn.FindStringSubmatch(e.Output); match != nil {
			n, _ := strconv.Atoi(match[1]) // digits
			draws[top] += n
		}
		verdict, ended := verdicts[e.Action]
		if !ended || e.Test == "" {
			continue
		}
		if at := strings.LastIndex(e.Test, "/"); at >= 0 {
			parents[e.Test[:at]] = true
		}
		if !parents[e.Test] {
			cases[top]++
		}
		if e.Test == top {
			results[top] = result{verdict: verdict}
		}
	}
	for name, r := range results {
		r.iterations = max(draws[name], cases[name])
		results[name] = r
	}
	return results, text.String(), nil
}

// report prints a line for each property and reports whether all hold.
func report(out io.Writer, properties []property, results map[proof]result, unit bool) bool {
	lines := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(lines, "\tproperty\ttests\titerations\tverdict")
	good := true
	for _, p := range properties {
		verdict, tests, iterations := "ok", 0, 0
		var bad []string
		for _, one := range p.proofs {
			if unit && one.kind == kindEndToEnd {
				continue
			}
			tests++
			iterations += results[one].iterations
			if results[one].verdict != "ok" {
				bad = append(bad, one.name)
			}
		}
		switch {
		case len(bad) > 0:
			verdict, good = "FAIL: "+strings.Join(bad, ", "), false
		case tests == 0:
			verdict = "end to end only"
		}
		_, _ = fmt.Fprintf(lines, "%d\t%s\t%d\t%d\t%s\n", p.number, p.title, tests, iterations, verdict)
	}
	return lines.Flush() == nil && good
}
