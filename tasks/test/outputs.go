package test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/count"
)

const (
	// maxVariable bounds NAME=value. Linux takes 128 KiB of one variable.
	maxVariable = 96 << 10
	// maxVariables bounds all of them. Linux takes 2 MiB of variables and
	// arguments together with what the commands have besides, and export
	// themselves.
	maxVariables = 1 << 20
)

// output is one output of a stack.
type output struct{ stack, key string }

func (o output) String() string { return o.stack + "." + o.key }

// outputVariables are the stack outputs as environment variables, and why the
// others of them are none: because several would have the same one, or because
// the system takes no such variable.
func outputVariables(outputs map[string]map[string]string) (vars map[string]string, left []string) {
	named := map[string][]output{}
	for _, stack := range slices.Sorted(maps.Keys(outputs)) {
		for _, key := range slices.Sorted(maps.Keys(outputs[stack])) {
			name := variableName(stack, key)
			named[name] = append(named[name], output{stack, key})
		}
	}
	vars = map[string]string{}
	total, full := 0, 0
	for _, name := range slices.Sorted(maps.Keys(named)) {
		one := named[name][0]
		value := outputs[one.stack][one.key]
		size := len(name) + len("=") + len(value) + len("\x00")
		switch {
		case len(named[name]) > 1:
			left = append(left, fmt.Sprintf("no variable for outputs %s: they would have the same, %s", listed(named[name]), name))
		case strings.ContainsRune(value, 0):
			left = append(left, fmt.Sprintf("no variable for output %s: its value has a NUL byte", one))
		case size > maxVariable:
			left = append(left, fmt.Sprintf("no variable for output %s: its value has %d bytes", one, len(value)))
		case total+size > maxVariables:
			full++
		default:
			vars[name], total = value, total+size
		}
	}
	if full > 0 {
		left = append(left, fmt.Sprintf("no variable for %s: all variables together have at most %d bytes", count.Of(full, "more output"), maxVariables))
	}
	return vars, left
}

// listed is "a.b, c.d and e.f".
func listed(several []output) string {
	texts := make([]string, len(several))
	for i, o := range several {
		texts[i] = o.String()
	}
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " and " + texts[last]
}

// variableName is the environment variable of one stack output:
// APHEX_OUTPUT_<STACK>_<KEY> in capitals, every other character replaced by
// "_".
func variableName(stack, key string) string {
	return "APHEX_OUTPUT_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, stack+"_"+key)
}
