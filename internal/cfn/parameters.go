package cfn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// parameters are the values a change set is created with.
type parameters struct {
	values []cfntypes.Parameter
	// changed says that resources may come out differently because of them.
	changed bool
	// missing are declared parameters without any value, sorted.
	missing []string
}

// resolveParameters decides on a value for every declared parameter: the one
// supplied, else the live stack's, else the template's default. live is nil
// for a new stack.
func resolveParameters(declared map[string]declaration, supplied map[string]string, live []cfntypes.Parameter) parameters {
	current := map[string]cfntypes.Parameter{}
	for _, p := range live {
		current[aws.ToString(p.ParameterKey)] = p
	}
	var out parameters
	for _, key := range slices.Sorted(maps.Keys(declared)) {
		declaration := declared[key]
		if strings.HasPrefix(declaration.Type, "AWS::SSM::Parameter") && !strings.Contains(declaration.Description, skipMark) {
			out.changed = true
		}
		value, given := supplied[key]
		previous, known := current[key]
		switch {
		case given:
			out.values = append(out.values, cfntypes.Parameter{ParameterKey: aws.String(key), ParameterValue: aws.String(value)})
			out.changed = out.changed || !known || value != currentValue(previous)
		case known:
			out.values = append(out.values, cfntypes.Parameter{ParameterKey: aws.String(key), UsePreviousValue: aws.Bool(true)})
		case declaration.Default == nil:
			out.missing = append(out.missing, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(supplied)) {
		if _, ok := declared[key]; !ok && supplied[key] != "" {
			out.values = append(out.values, cfntypes.Parameter{ParameterKey: aws.String(key), ParameterValue: aws.String(supplied[key])})
			out.changed = true
		}
	}
	return out
}

func currentValue(p cfntypes.Parameter) string {
	if p.ResolvedValue != nil {
		return *p.ResolvedValue
	}
	return aws.ToString(p.ParameterValue)
}

func sortedTags(tags map[string]string) []cfntypes.Tag {
	out := make([]cfntypes.Tag, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, cfntypes.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return out
}

// differs returns why a change set is needed although the templates are the
// same, or "". Termination protection is not among the reasons: it is set
// without a change set.
func differs(in Input, live *cfntypes.Stack, p parameters) string {
	switch {
	case in.Force:
		return "forced"
	case Status(live.StackStatus).Paused():
		return "the stack is " + string(live.StackStatus)
	case !sameTags(in.Tags, live.Tags):
		return "tags differ"
	case in.NotificationARNs != nil && !sameSet(in.NotificationARNs, live.NotificationARNs):
		return "notification ARNs differ"
	case p.changed:
		return "parameters may differ"
	}
	return ""
}

func sameTags(want map[string]string, live []cfntypes.Tag) bool {
	have := map[string]string{}
	for _, tag := range live {
		have[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return maps.Equal(want, have) || len(want) == 0 && len(have) == 0
}

func sameSet(a, b []string) bool {
	a, b = slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b)))
	return slices.Equal(a, b)
}

func outputs(stack *cfntypes.Stack) map[string]string {
	out := map[string]string{}
	if stack == nil {
		return out
	}
	for _, o := range stack.Outputs {
		out[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	return out
}

func missingText(keys []string) string {
	if len(keys) == 1 {
		return fmt.Sprintf("template parameter %s has no value and no default", keys[0])
	}
	return fmt.Sprintf("template parameters %s have no value and no default", strings.Join(keys, ", "))
}
