package cfn_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// seeded is one failure in the words that a real stack had for it; names and
// ids are others.
type seeded struct {
	Name string `json:"name"`
	// Source is the address of the thread where the words were seen.
	Source string      `json:"source"`
	Update bool        `json:"update"`
	Events [][4]string `json:"events"` // status, type, logical id below nested stacks, reason
	Turn   [2]string   `json:"turn"`   // status and reason of the stack when it turns back
	After  [][4]string `json:"after"`
	End    string      `json:"end"`
	Want   []string    `json:"want"`
	Never  []string    `json:"never"`
}

// said turns an event of the table into one of the script.
func said(token string, e [4]string) event {
	id, nested := strings.CutPrefix(e[2], "Nest/")
	physical := id
	if e[1] == "AWS::CloudFormation::Stack" {
		physical = nestedARN
	}
	stack := stackARN
	if nested {
		stack = nestedARN
	}
	return event{stack, token, e[0], e[1], id, physical, e[3]}
}

// Each failure is reported with the resource that caused it and what to do; the
// states are those that the emulator has no way into, or words differently.
func TestDeploy_FailureReports(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/failures.json")
	require.NoError(t, err)
	var rows []seeded
	require.NoError(t, json.Unmarshal(data, &rows))
	require.NotEmpty(t, rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			require.NotEmpty(t, row.Source)
			s := newScript(t)
			if row.Update {
				s.status, s.live = "CREATE_COMPLETE", "{}"
			}
			s.execute = func(s *script, token string) {
				s.stack(token, map[bool]string{false: "CREATE_IN_PROGRESS", true: "UPDATE_IN_PROGRESS"}[row.Update])
				for _, e := range row.Events {
					s.events = append(s.events, said(token, e))
				}
				s.stack(token, row.Turn[0])
				s.events[len(s.events)-1].reason = row.Turn[1]
				for _, e := range row.After {
					s.events = append(s.events, said(token, e))
				}
				s.stack(token, row.End)
			}
			var events []cfn.Event
			_, err := s.deploy(t, func(in *cfn.Input) {
				in.ConstructPath = func(ids ...string) string { return "app/" + strings.Join(ids, "/") }
				in.Source = func(...string) string { return "bin/app.ts:7:1" }
			}, func(c *cfn.Config) { c.OnEvent = func(e cfn.Event) { events = append(events, e) } })
			requireFault(t, err, fault.StackFailed, row.Want...)
			for _, text := range row.Never {
				require.NotContains(t, fault.Message(err), text)
			}
			require.Len(t, events, len(row.Events)+len(row.After)+3, "every event is handed on")
			for _, e := range events {
				require.NotContains(t, e.Reason, "X-Amz-Signature")
			}
		})
	}
}

// The words are those of https://github.com/aws/aws-cdk/issues/12130.
func TestDeploy_FailedDeleteInCleanUpIsAWarning(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "CREATE_COMPLETE", "{}"
	s.execute = func(s *script, token string) {
		s.stack(token, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
		s.events = append(s.events, event{stackARN, token, "DELETE_FAILED", "AWS::EC2::SecurityGroup", "Old", "sg-0123456789abcdef0", "resource sg-0123456789abcdef0 has a dependent object (Service: AmazonEC2; Status Code: 400; Error Code: DependencyViolation; Request ID: fb267a6d-df25-49cd-9374-e206fc0f4e8c; Proxy: null)"})
		s.stack(token, "UPDATE_COMPLETE")
		s.execution = "EXECUTE_COMPLETE"
	}
	got, err := s.deploy(t, func(in *cfn.Input) {
		in.Source = func(...string) string { return "bin/app.ts:3:1" }
	})
	require.NoError(t, err)
	require.Equal(t, []string{"resource Old (AWS::EC2::SecurityGroup, made at bin/app.ts:3:1) was replaced or removed but could not be deleted: resource sg-0123456789abcdef0 has a dependent object (Service: AmazonEC2; Status Code: 400; Error Code: DependencyViolation; Request ID: fb267a6d-df25-49cd-9374-e206fc0f4e8c; Proxy: null)"}, got.Warnings)
}

func TestDeploy_DisappearedStackTellsOfItsDeletion(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.execute = func(s *script, token string) {
		s.stack(token, "CREATE_IN_PROGRESS")
		s.stack("Console-DeleteStack-1", "DELETE_IN_PROGRESS")
		s.events[len(s.events)-1].reason = "User Initiated"
		s.stack(token, "CREATE_COMPLETE")
		s.status = ""
	}
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.StackFailed, "deleted meanwhile; DELETE_IN_PROGRESS at 12:00:01Z: User Initiated", "Find out who deleted the stack")
}

// The words are those of https://github.com/sbstjn/cra-serverless/issues/4.
func TestDeploy_RefusedParameterIsNamed(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.refusal = "Parameters: [BucketName, BucketKey] must have values"
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.ChangeSetFailed, "Parameters: [BucketName, BucketKey] must have values", "Give template parameters BucketName, BucketKey a default in the app, then push again")
	require.Equal(t, []string{"CreateChangeSet"}, s.writes())
}
