package parity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// State is what the stacks of an app are before the deployment that counts.
type State string

// The prior states.
const (
	Absent       State = "absent"
	Same         State = "same"
	Changed      State = "changed"
	FailedCreate State = "failed create"
	FailedUpdate State = "failed update"
	// Review is a stack that has a change set nobody executed.
	Review State = "leftover review"
	// Protected is a stack whose termination protection somebody switched on.
	Protected State = "protected"
)

// States returns all prior states.
func States() []State {
	return []State{Absent, Same, Changed, FailedCreate, FailedUpdate, Review, Protected}
}

// move is one deployment on the way through the states.
type move struct {
	// state is the prior state it is compared for; empty for one that only
	// leads there.
	state   State
	variant Variant
	// fails says that it must end badly.
	fails bool
}

// chains are the deployments that lead through all states; each chain begins
// with an empty account. What a state is left in is where the next one begins.
func chains() [][]move {
	return [][]move{
		{
			{state: Absent, variant: One},
			{state: Same, variant: One},
			{state: Changed, variant: Two},
			{variant: Bad, fails: true},
			{state: FailedUpdate, variant: One},
			{state: Protected, variant: Two},
		},
		{
			{variant: Bad, fails: true},
			{state: FailedCreate, variant: One},
		},
		{
			{state: Review, variant: One},
		},
	}
}

// arrange does what of a state no deployment does.
func (s State) arrange(ctx context.Context, cfg awssdk.Config, stacks []string) error {
	client := cfnsdk.NewFromConfig(cfg)
	for _, name := range stacks {
		var err error
		switch s {
		case Review:
			_, err = client.CreateChangeSet(ctx, &cfnsdk.CreateChangeSetInput{
				StackName: awssdk.String(name), ChangeSetName: awssdk.String("cdk-deploy-change-set"), ChangeSetType: cfntypes.ChangeSetTypeCreate,
				TemplateBody: awssdk.String(`{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}`),
			})
		case Protected:
			_, err = client.UpdateTerminationProtection(ctx, &cfnsdk.UpdateTerminationProtectionInput{
				StackName: awssdk.String(name), EnableTerminationProtection: awssdk.Bool(true),
			})
		default:
		}
		if err != nil {
			return fmt.Errorf("arrange %s of stack %s: %w", s, name, err)
		}
	}
	return nil
}

// Matrix returns the cells of some apps and prior states; empty lists mean all.
// A state that does not apply to an app is left out.
func Matrix(apps, states []string) ([]Cell, error) {
	all, err := Apps()
	if err != nil {
		return nil, err
	}
	if len(apps) == 0 {
		apps = all
	}
	var out []Cell
	for _, app := range apps {
		if !slices.Contains(all, app) {
			return nil, fmt.Errorf("there is no app %q; there are %s", app, strings.Join(all, ", "))
		}
		settings, err := appSettings(app)
		if err != nil {
			return nil, err
		}
		for _, state := range States() {
			applies := len(settings.States) == 0 || slices.Contains(settings.States, state)
			if applies && (len(states) == 0 || slices.Contains(states, string(state))) {
				out = append(out, Cell{app, state})
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("nothing to compare; states are %v", States())
	}
	return out, nil
}
