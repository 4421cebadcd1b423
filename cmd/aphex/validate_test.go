package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// fakeSTS answers as STS does, where an access key is the account it belongs
// to. It gives every role that it does not refuse; the session token is the role.
type fakeSTS struct {
	refuses func(role string) bool
	caller  string // the resource of the caller's ARN; empty is a user

	mu      sync.Mutex
	assumed []string // roles that were asked for, and by which session
}

var stsAccessKey = regexp.MustCompile(`Credential=([0-9]{12})/`)

func (s *fakeSTS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := stsAccessKey.FindStringSubmatch(r.Header.Get("Authorization"))
	if err := r.ParseForm(); err != nil || key == nil {
		http.Error(w, "no STS request", http.StatusBadRequest)
		return
	}
	role := r.PostForm.Get("RoleArn")
	action := r.PostForm.Get("Action")
	switch action {
	case "GetCallerIdentity":
		_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::%[1]s:%[2]s</Arn><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, key[1], cmp.Or(s.caller, "user/jo"))
	case "AssumeRole":
		s.mu.Lock()
		s.assumed = append(s.assumed, role+" "+r.PostForm.Get("RoleSessionName"))
		s.mu.Unlock()
		if s.refuses != nil && s.refuses(role) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>not for you</Message></Error></ErrorResponse>`)
			return
		}
		_, _ = fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			strings.Split(role, ":")[4], role)
	default:
		http.Error(w, "unknown action "+action, http.StatusBadRequest)
	}
}

const onlineConfig = `version: "1.0"
build: {commands: []}
environments:
  - {name: dev, region: eu-west-1, account: "111111111111", requiredContext: [vpcId], stacks: [{name: a, path: app}]}
  - {name: stage, region: eu-west-1, account: "222222222222", stacks: [{name: a, path: app}]}
  - {name: prod, region: eu-central-1, account: "333333333333", roleArn: "arn:aws:iam::333333333333:role/deploy", stacks: [{name: a, path: app}]}
`

// online runs `aphex validate --online` in a checkout, with an access key; empty
// is nobody.
func online(t *testing.T, sts *fakeSTS, accessKey string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(sts)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": accessKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_ENDPOINT_URL": "", "AWS_REGION": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	root := t.TempDir()
	for name, text := range map[string]string{".git": "", "app/cdk.json": "{}", "aphex-config.yaml": onlineConfig} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	var out, err bytes.Buffer
	code = run(t.Context(), []string{"validate", "--online", "--region", "eu-west-1", "--endpoint-url", server.URL, filepath.Join(root, "aphex-config.yaml")}, &out, &err)
	return code, out.String(), err.String()
}

// Not parallel: the SDK reads the process's environment.
//
// Feature: aphex-pipeline, Property 20: AWS credential validation
func TestValidate_Online(t *testing.T) {
	sts := &fakeSTS{refuses: func(role string) bool { return strings.Contains(role, "222222222222") }}
	code, stdout, stderr := online(t, sts, "999999999999")
	require.Equal(t, exitUsage, code)
	require.Equal(t, "dev: credentials reach account 111111111111 in eu-west-1\nprod: credentials reach account 333333333333 in eu-central-1\n", stdout)
	require.Regexp(t, `(?s)^error  check the context of dev: required context vpcId .*`+
		`error  assume role arn:aws:iam::222222222222:role/cdk-hnb659fds-deploy-role-222222222222-eu-west-1 for stage \(account 222222222222, eu-west-1\): .*AccessDenied.*   \[RoleDenied\]\n`+
		`fix    [^\n]*cdk bootstrap aws://222222222222/eu-west-1[^\n]*\nerror  [^\n]*aphex-config.yaml: 2 findings\n$`, stderr)
	require.ElementsMatch(t, []string{
		"arn:aws:iam::111111111111:role/cdk-hnb659fds-deploy-role-111111111111-eu-west-1 aphex-command-line-online-validate",
		"arn:aws:iam::222222222222:role/cdk-hnb659fds-deploy-role-222222222222-eu-west-1 aphex-command-line-online-validate",
		"arn:aws:iam::333333333333:role/deploy aphex-command-line-online-validate",
	}, sts.assumed)
}

// Not parallel: the SDK reads the process's environment.
func TestValidate_OnlineAsNobodyIsToldOnce(t *testing.T) {
	sts := &fakeSTS{}
	code, stdout, stderr := online(t, sts, "")
	require.Equal(t, exitUsage, code)
	require.Empty(t, stdout)
	require.Equal(t, 1, strings.Count(stderr, "[CredentialsMissing]"), stderr)
	require.Contains(t, stderr, "error  prove the credentials of dev, stage, prod: find out the AWS account: no AWS credentials were found")
	require.Contains(t, stderr, "2 findings\n", "and the context of dev")
	require.Empty(t, sts.assumed)
}

func TestReportFindings_WhatPassesIsNoMistake(t *testing.T) {
	t.Parallel()
	away := fault.Newf(fault.Transient, fault.AWSUnavailable, "ask AWS", "Try again", "no answer")
	wrong := fault.Newf(fault.User, fault.RoleDenied, "assume a role", "", "denied")
	for name, tt := range map[string]struct {
		findings []error
		code     int
		text     string
	}{
		"all may pass": {[]error{away}, exitTransient, "error  ask AWS: no answer   [AWSUnavailable]\nfix    Try again\n"},
		"one does not": {[]error{away, wrong}, exitUsage, "error  ask AWS: no answer   [AWSUnavailable]\nfix    Try again\nerror  assume a role: denied   [RoleDenied]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			exit, ok := errors.AsType[exitError](reportFindings(&out, "x.yaml", tt.findings))
			require.True(t, ok)
			require.Equal(t, tt.code, exit.code)
			require.Equal(t, tt.text, out.String())
		})
	}
}
