package assembly

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

const resolveOp = "find the configured stacks in the app"

// Resolve returns the stacks that names stand for, in the order of names. A
// name is compared with the hierarchical ids first and with the stack names
// only if none of those is equal.
//
// The order must be deployable as it stands: everything a stack depends on
// has to be listed, and before it.
//
// Errors: StackUnknown lists what the app has, StackAmbiguous what the name
// fits, StackUnlisted names the dependency, StackOrder the pair to swap.
func (a *Assembly) Resolve(names []string) ([]*Stack, error) {
	var stacks []*Stack
	for _, name := range names {
		s, err := a.find(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(stacks, s) {
			return nil, fault.Newf(fault.User, fault.StackAmbiguous, resolveOp, "List every stack once",
				"stack %q is the same as another configured one, %s", name, s)
		}
		stacks = append(stacks, s)
	}
	for i, s := range stacks {
		if err := checkDependencies(s, names, stacks, i); err != nil {
			return nil, err
		}
	}
	return stacks, nil
}

func (a *Assembly) find(name string) (*Stack, error) {
	matches := a.matching(func(s *Stack) bool { return s.HierarchicalID == name })
	if len(matches) == 0 {
		matches = a.matching(func(s *Stack) bool { return s.Name == name })
	}
	switch len(matches) {
	case 1:
		return matches[0], nil
	case 0:
		if len(a.Stacks) == 0 {
			return nil, fault.Newf(fault.User, fault.StackUnknown, resolveOp, "Define the stack in the app", "stack %q is not defined: the app defines no stacks", name)
		}
		return nil, fault.Newf(fault.User, fault.StackUnknown, resolveOp, "Correct the name in the configuration, or define the stack in the app",
			"stack %q is not defined; the app has: %s", name, list(a.Stacks))
	default:
		return nil, fault.Newf(fault.User, fault.StackAmbiguous, resolveOp, "Use the construct path, which is unique",
			"stack %q fits several stacks: %s", name, list(matches))
	}
}

func (a *Assembly) matching(keep func(*Stack) bool) []*Stack {
	var out []*Stack
	for _, s := range a.Stacks {
		if keep(s) {
			out = append(out, s)
		}
	}
	return out
}

// checkDependencies holds the i-th selected stack against those before it.
func checkDependencies(s *Stack, names []string, selected []*Stack, i int) error {
	for _, dependency := range s.Dependencies {
		at := slices.Index(selected, dependency)
		switch {
		case at < 0:
			return fault.Newf(fault.User, fault.StackUnlisted, resolveOp,
				fmt.Sprintf("Add %s to the stacks of the environment, before %s", dependency.HierarchicalID, names[i]),
				"stack %s depends on %s, which the environment does not list", s, dependency)
		case at > i:
			return fault.Newf(fault.User, fault.StackOrder, resolveOp,
				fmt.Sprintf("Move %s before %s in the stacks of the environment", names[at], names[i]),
				"stack %s depends on %s, which is listed after it", s, dependency)
		}
	}
	return nil
}

func list(stacks []*Stack) string {
	names := make([]string, 0, len(stacks))
	for _, s := range stacks {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}
