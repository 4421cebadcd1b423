package diff

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// CloudFormation may resolve a secret of a parameter into the property that
// refers to it: neither side is shown, whichever template tells.
func TestAddChangeSet_PropertiesThatReferToSecretsAreHidden(t *testing.T) {
	t.Parallel()
	const declared = `"Parameters": {"Pass": {"Type": "String", "NoEcho": "true"}}`
	refers := parse(t, `{`+declared+`, "Resources": {"Fn": {"Type": "AWS::Lambda::Function", "Properties": {
		"Environment": {"Variables": {"URL": {"Fn::Sub": "https://u:${Pass}@host"}}}, "MemorySize": 128}}}}`)
	plain := parse(t, `{"Resources": {"Fn": {"Type": "AWS::Lambda::Function", "Properties": {"Environment": {"Variables": {"URL": "https://host"}}, "MemorySize": 256}}}}`)
	for name, templates := range map[string][2]map[string]any{"before": {refers, plain}, "after": {plain, refers}} {
		stack := Stack{}
		stack = stack.AddChangeSet(ChangeSet{Status: Created}, []ResourceInput{{ID: "Fn", ResourceChange: ResourceChange{Action: "Modify", Details: []ResourceDetail{
			{Attribute: "Properties", Path: "/Properties/Environment/Variables/URL", Before: "https://one@host", After: "https://two@host"},
			{Attribute: "Properties", Path: "/Properties/MemorySize", Before: "128", After: "256"},
			{Attribute: "Properties", Path: "", Before: "https://one@host", After: ""},
		}}}}, templates[0], templates[1])
		got := stack.Changes[0].CloudFormation.Details
		require.Equal(t, []string{hiddenValue, "128", hiddenValue}, []string{got[0].Before, got[1].Before, got[2].Before}, name)
		require.Equal(t, []string{hiddenValue, "256", ""}, []string{got[0].After, got[1].After, got[2].After}, name)
		require.Equal(t, []bool{true, false, true}, []bool{got[0].Hidden, got[1].Hidden, got[2].Hidden}, name)
	}
}

func TestAddChangeSet_OnlyWhatWasAskedIsKnown(t *testing.T) {
	t.Parallel()
	for _, status := range []ChangeSetStatus{Failed, NotMade, Created} {
		stack := Stack{Changes: []Change{{Kind: Resource, Action: Modify, ID: "A"}, {Kind: Resource, Action: Modify, ID: "Nest/B"}}}
		stack = stack.AddChangeSet(ChangeSet{Status: status}, nil, nil, nil)
		want := Replacement("")
		if status == Created {
			want = Kept
		}
		require.Equal(t, want, stack.Changes[0].Replacement, status)
		require.Empty(t, stack.Changes[1].Replacement, "a nested stack's change set may not have been read")
	}
}
