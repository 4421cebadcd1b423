package awsauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// stsServer answers as STS does. An access key is the account it belongs to;
// keys it issues are the account of the role plus a serial number.
type stsServer struct {
	url string

	mu       sync.Mutex
	refuse   map[string]string // role ARN → error code
	lifetime time.Duration
	requests []url.Values
	// assuming, if set, is called before a role is given; it may wait.
	assuming func()
}

func newSTS(t *testing.T) *stsServer {
	t.Helper()
	s := &stsServer{refuse: map[string]string{}, lifetime: time.Hour}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *stsServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.requests = append(s.requests, r.PostForm)
	if s.assuming != nil && r.PostForm.Get("Action") == "AssumeRole" {
		s.mu.Unlock()
		s.assuming()
		s.mu.Lock()
	}
	role := r.PostForm.Get("RoleArn")
	switch action := r.PostForm.Get("Action"); action {
	case "GetCallerIdentity":
		key := regexp.MustCompile(`Credential=([0-9]{12})`).FindStringSubmatch(r.Header.Get("Authorization"))
		if key == nil {
			s.fail(w, "InvalidClientTokenId")
			return
		}
		_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::%[1]s:assumed-role/base/x</Arn><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, key[1])
	case "AssumeRole", "AssumeRoleWithWebIdentity":
		if code := s.refuse[role]; code != "" {
			s.fail(w, code)
			return
		}
		account := strings.Split(role, ":")[4]
		_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>%[2]s%[3]d</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[4]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			action, account, len(s.requests), time.Now().Add(s.lifetime).UTC().Format(time.RFC3339))
	default:
		s.fail(w, "InvalidAction")
	}
}

func (s *stsServer) fail(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no entry</Message></Error><RequestId>r1</RequestId></ErrorResponse>`, code)
}

// sent returns the requests of an action so far.
func (s *stsServer) sent(action string) []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []url.Values
	for _, r := range s.requests {
		if r.Get("Action") == action {
			out = append(out, r)
		}
	}
	return out
}

func (s *stsServer) base(account string) aws.Config {
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(s.url),
		Credentials: credentials.NewStaticCredentialsProvider(account, "secret", ""),
	}
}

const (
	own    = "111111111111"
	other  = "222222222222"
	roleIn = "arn:aws:iam::222222222222:role/deploy"
)

func target(account string) awsauth.Target {
	return awsauth.Target{Environment: "prod", Account: account, Region: "eu-west-1"}
}

// Feature: aphex-pipeline, Property 14: Cross-account role assumption
func TestSessions_FallbackTable(t *testing.T) {
	t.Parallel()
	ownRole := "arn:aws:iam::111111111111:role/deploy"
	tests := []struct {
		name    string
		account string // wanted
		role    string
		refuse  string
		reason  fault.Reason
		text    []string
		via     string
		chosen  bool
		warns   bool
	}{
		{name: "own account without role", account: own},
		{name: "other account without role", account: other, reason: fault.AccountMismatch, text: []string{own, other, "roleArn"}},
		{name: "role in the other account", account: other, role: roleIn, via: roleIn},
		{name: "role in the own account", account: own, role: ownRole, via: ownRole},
		{name: "role of a third account", account: other, role: ownRole, reason: fault.AccountMismatch, text: []string{own, other, ownRole, "eu-west-1"}},
		{name: "refused, own account", account: own, role: ownRole, refuse: "AccessDenied", warns: true},
		{name: "refused, other account", account: other, role: roleIn, refuse: "AccessDenied", reason: fault.RoleDenied, text: []string{roleIn, "assumed-role/base/x", "AccessDenied: no entry", "--trust " + own, "cdk bootstrap aws://222222222222/eu-west-1"}},
		{name: "chosen, own account", account: own, role: ownRole, chosen: true, via: ownRole},
		{name: "chosen and refused, own account", account: own, role: ownRole, chosen: true, refuse: "AccessDenied", reason: fault.RoleDenied, text: []string{ownRole, "assumed-role/base/x", "AccessDenied: no entry", "trust policy"}},
		{name: "expired, own account", account: own, role: ownRole, refuse: "ExpiredTokenException", reason: fault.CredentialsMissing, text: []string{"expired"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sts := newSTS(t)
			var role *awsauth.Role
			if tt.role != "" {
				role = &awsauth.Role{ARN: tt.role, Chosen: tt.chosen}
				sts.refuse[tt.role] = tt.refuse
			}
			session, err := awsauth.NewSessions(sts.base(own), "aphex-s").For(t.Context(), target(tt.account), role)
			if tt.reason != "" {
				require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
				for _, text := range tt.text {
					require.Contains(t, fault.Message(err), text)
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.via, session.Role)
			require.Equal(t, tt.warns, session.Warning != "")
			require.Equal(t, tt.warns, session.Denied != "")
			require.Equal(t, "eu-west-1", session.Config.Region)
			id, err := awsauth.Caller(t.Context(), session.Config)
			require.NoError(t, err)
			require.Equal(t, tt.account, id.Account)
		})
	}
}

// Feature: aphex-pipeline, Property 14: Cross-account role assumption
func TestSessions_AssumeRoleRequestCarriesEverything(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	role := &awsauth.Role{ARN: roleIn, ExternalID: "ext", Options: map[string]any{
		"Tags":            []any{map[string]any{"Key": "team", "Value": "shop"}},
		"DurationSeconds": 1800,
		"PolicyArns":      []any{map[string]any{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}},
	}}
	_, err := awsauth.NewSessions(sts.base(own), "aphex-shop-x-deploy").For(t.Context(), target(other), role)
	require.NoError(t, err)
	require.Len(t, sts.sent("AssumeRole"), 1)
	got := sts.sent("AssumeRole")[0]
	require.Equal(t, "aphex-shop-x-deploy", got.Get("RoleSessionName"))
	require.Equal(t, "ext", got.Get("ExternalId"))
	require.Equal(t, "1800", got.Get("DurationSeconds"))
	require.Equal(t, "team", got.Get("Tags.member.1.Key"))
	require.Equal(t, "team", got.Get("TransitiveTagKeys.member.1"))
	require.Equal(t, "arn:aws:iam::aws:policy/ReadOnlyAccess", got.Get("PolicyArns.member.1.arn"))
}

func TestSessions_RefusesUnknownRoleOptions(t *testing.T) {
	t.Parallel()
	_, err := awsauth.NewSessions(newSTS(t).base(own), "s").For(t.Context(), target(other), &awsauth.Role{ARN: roleIn, Options: map[string]any{"Colour": "red"}})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
	require.ErrorContains(t, err, "Colour")
}

func TestSessions_ProvesEachRoleOnce(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	sessions := awsauth.NewSessions(sts.base(own), "s")
	for range 3 {
		_, err := sessions.For(t.Context(), target(other), &awsauth.Role{ARN: roleIn})
		require.NoError(t, err)
	}
	require.Len(t, sts.sent("AssumeRole"), 1)
	require.Len(t, sts.sent("GetCallerIdentity"), 2)
}

// Two roles are proved at the same time: neither waits for the other.
func TestSessions_ProvesRolesTogether(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	var both sync.WaitGroup
	both.Add(2)
	sts.assuming = func() { both.Done(); both.Wait() }
	sessions := awsauth.NewSessions(sts.base(own), "s")
	errs := make([]error, 2)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			_, errs[i] = sessions.For(t.Context(), target(other), &awsauth.Role{ARN: fmt.Sprintf("%s%d", roleIn, i)})
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, sts.sent("GetCallerIdentity"), 3)
}

// What failed is tried again by the next who asks.
func TestSessions_FailureIsNotKept(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	sts.refuse[roleIn] = "AccessDenied"
	sessions := awsauth.NewSessions(sts.base(own), "s")
	_, err := sessions.For(t.Context(), target(other), &awsauth.Role{ARN: roleIn})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.RoleDenied})
	sts.refuse[roleIn] = ""
	_, err = sessions.For(t.Context(), target(other), &awsauth.Role{ARN: roleIn})
	require.NoError(t, err)
}

func TestSessions_RenewsBeforeTheEnd(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	sts.lifetime = time.Minute // within the renewal window: every use renews
	session, err := awsauth.NewSessions(sts.base(own), "s").For(t.Context(), target(other), &awsauth.Role{ARN: roleIn})
	require.NoError(t, err)
	first, err := session.Config.Credentials.Retrieve(t.Context())
	require.NoError(t, err)
	second, err := session.Config.Credentials.Retrieve(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, first.AccessKeyID, second.AccessKeyID)
}

func TestCaller_Failures(t *testing.T) {
	t.Parallel()
	_, err := awsauth.Caller(t.Context(), aws.Config{Region: "us-east-1"})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CredentialsMissing})

	sts := newSTS(t)
	cfg := sts.base(own)
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no EC2 IMDS role found")
	})
	_, err = awsauth.Caller(t.Context(), cfg)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CredentialsMissing})

	cfg = sts.base(own)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	cfg.BaseEndpoint = aws.String(closed.URL)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	_, err = awsauth.Caller(t.Context(), cfg)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AWSUnavailable})
}

func TestAssertAccount(t *testing.T) {
	t.Parallel()
	sts := newSTS(t)
	require.NoError(t, awsauth.AssertAccount(t.Context(), sts.base(own), target(own), ""))
	require.ErrorIs(t, awsauth.AssertAccount(t.Context(), sts.base(own), target(other), ""), &fault.Fault{Reason: fault.AccountMismatch})
}

// The web identity path as a pod has it: a token file and a role in the
// environment. Environment variables keep this test from running in parallel.
func TestBase_WebIdentity(t *testing.T) {
	sts := newSTS(t)
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("header.body.signature"), 0o600))
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111111111111:role/base")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	// As in the sidecar, whose children read it: it must not lead the SDK to
	// the public endpoint.
	t.Setenv("AWS_ENDPOINT_URL", sts.url)
	cfg, err := awsauth.Base(t.Context(), awsauth.Options{EndpointURL: sts.url})
	require.NoError(t, err)
	require.Equal(t, "us-east-1", cfg.Region)
	id, err := awsauth.Caller(t.Context(), cfg)
	require.NoError(t, err)
	require.InDelta(t, 0, id.Skew.Seconds(), 5, "the endpoint tells its time in whole seconds")
	id.Skew = 0
	require.Equal(t, awsauth.Identity{Account: own, ARN: "arn:aws:sts::111111111111:assumed-role/base/x", Partition: "aws"}, id)
	require.Equal(t, "header.body.signature", sts.sent("AssumeRoleWithWebIdentity")[0].Get("WebIdentityToken"))

	sts.refuse["arn:aws:iam::111111111111:role/base"] = "AccessDenied"
	cfg, err = awsauth.Base(t.Context(), awsauth.Options{EndpointURL: sts.url})
	require.NoError(t, err)
	_, err = awsauth.Caller(t.Context(), cfg)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CredentialsMissing})
	require.ErrorContains(t, err, "AccessDenied")
}

func TestSessionName(t *testing.T) {
	t.Parallel()
	require.Equal(t, "aphex-shop-shop-x7k2p-deploy-env", awsauth.SessionName("shop", "shop-x7k2p", "deploy-env"))
	require.Equal(t, "aphex-a-b-c", awsauth.SessionName("a", "b", "c"))
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) string { return rapid.StringN(0, 60, -1).Draw(rt, label) }
		p, r, s := draw("pipeline"), draw("run"), draw("stage")
		name := awsauth.SessionName(p, r, s)
		require.Regexp(rt, `^[\w+=,.@-]{2,64}$`, name)
		require.Equal(rt, name, awsauth.SessionName(p, r, s))
	})
	long := strings.Repeat("x", 60)
	require.NotEqual(t, awsauth.SessionName("p", long+"1", "test"), awsauth.SessionName("p", long+"2", "test"))
	require.Contains(t, awsauth.SessionName("p", long, "deploy-env"), "-deploy-env-")
}

func TestIdentity_Is(t *testing.T) {
	t.Parallel()
	session := awsauth.Identity{Account: own, ARN: "arn:aws:sts::111111111111:assumed-role/base/x"}
	require.True(t, session.Is("arn:aws:iam::111111111111:role/base"))
	require.True(t, session.Is("arn:aws:iam::111111111111:role/a/path/base"))
	for _, role := range []string{
		"arn:aws:iam::222222222222:role/base", "arn:aws:iam::111111111111:role/base/x", "arn:aws:iam::111111111111:user/base", "base", "",
	} {
		require.False(t, session.Is(role), role)
	}
	require.False(t, awsauth.Identity{Account: own, ARN: "arn:aws:iam::111111111111:user/base"}.Is("arn:aws:iam::111111111111:role/base"))
}
