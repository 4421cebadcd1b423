package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// ownAccount is where fakeSTS finds whoever asks.
const ownAccount = "111111111111"

// sts is where an STS lets one role be assumed.
func sts(t *testing.T, assumable string) (url string) {
	t.Helper()
	server := httptest.NewServer(&fakeSTS{refuses: func(role string) bool { return role != assumable }, caller: "assumed-role/pipeline/aphex"})
	t.Cleanup(server.Close)
	return server.URL
}

// Not parallel: the SDK reads the process's environment.
func TestIdentity_NeverHandsItsOwnCredentialsToTheApp(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": ownAccount, "AWS_SECRET_ACCESS_KEY": "base-secret", "AWS_SESSION_TOKEN": "base", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	const (
		configured = "arn:aws:iam::111111111111:role/dev"
		named      = "arn:aws:iam::111111111111:role/read"
		own        = "arn:aws:iam::111111111111:role/teams/pipeline"
		usual      = "arn:aws:iam::111111111111:role/cdk-hnb659fds-lookup-role-111111111111-eu-west-1"
	)
	tests := map[string]struct {
		roleARN, lookupRole string
		assumable           string
		personal            bool
		key                 string // whose credentials they are
		denied              string // part of the message if there are none
	}{
		"configured":                         {roleARN: configured, lookupRole: named, assumable: configured, key: configured},
		"configured and refused":             {roleARN: configured, lookupRole: named, assumable: named, denied: configured},
		"configured and refused, personally": {roleARN: configured, assumable: named, personal: true, denied: configured},
		"named by the app":                   {lookupRole: "arn:${AWS::Partition}:iam::111111111111:role/read", assumable: named, key: named},
		"named by the app and refused":       {lookupRole: named, denied: "role " + named + " could not be assumed (AccessDenied: not for you), and the app never gets the pipeline's own credentials"},
		"the pipeline's own, by the app":     {lookupRole: own, assumable: own, denied: "role " + own + " is the pipeline's own, and the app never gets"},
		"the pipeline's own, configured":     {roleARN: own, assumable: own, denied: "role " + own + " is the pipeline's own, and the app never gets"},
		"one's own":                          {roleARN: own, assumable: own, personal: true, key: own},
		"of the bootstrap":                   {assumable: usual, key: usual},
		"of the bootstrap and refused":       {denied: usual},
		"a person's own":                     {lookupRole: named, personal: true, key: "base"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			id := &identity{options: awsauth.Options{Region: "us-east-1", EndpointURL: sts(t, tt.assumable)}, redactor: redact.New(), personal: tt.personal}
			target := pipeline.Environment{Name: "dev", Account: ownAccount, Region: "eu-west-1", RoleARN: tt.roleARN}
			vars, err := id.lookups(t.Context(), target, tt.lookupRole)
			if tt.denied != "" {
				require.ErrorIs(t, err, &fault.Fault{Reason: fault.RoleDenied})
				require.Contains(t, fault.Message(err), tt.denied)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.key, vars["AWS_SESSION_TOKEN"])
			require.Equal(t, "eu-west-1", vars["AWS_REGION"])
		})
	}

	// A deployment goes on with the process's own credentials; tests have none.
	id := &identity{options: awsauth.Options{Region: "us-east-1", EndpointURL: sts(t, "")}, redactor: redact.New()}
	target := pipeline.Environment{Name: "dev", Account: ownAccount, Region: "eu-west-1"}
	warning, err := id.prove(t.Context(), task.Request{}, target)
	require.NoError(t, err)
	require.Contains(t, warning, "could not be assumed (AccessDenied: not for you); going on as arn:aws:iam::111111111111:assumed-role/pipeline/aphex")
	vars, missing, err := id.target(t.Context(), task.Request{}, target)
	require.NoError(t, err)
	require.Empty(t, vars)
	require.Contains(t, missing, "cdk-hnb659fds-deploy-role-111111111111-eu-west-1 could not be assumed (AccessDenied: not for you), and commands never get")

	// A role of the environment that is the pipeline's own gives them no more.
	id = &identity{options: awsauth.Options{Region: "us-east-1", EndpointURL: sts(t, own)}, redactor: redact.New()}
	target.RoleARN = own
	warning, err = id.prove(t.Context(), task.Request{}, target)
	require.NoError(t, err)
	require.Empty(t, warning, "a deployment may have it")
	vars, missing, err = id.target(t.Context(), task.Request{}, target)
	require.NoError(t, err)
	require.Empty(t, vars)
	require.Contains(t, missing, "role "+own+" is the pipeline's own, and commands never get")
}
