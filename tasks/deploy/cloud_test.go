package deploy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// cloud answers requests to AWS without a network, which a clock that is no
// real one needs, and keeps who asked what where. Stacks do not exist, change
// sets are never worked out, and every role may be assumed.
type cloud struct {
	mu    sync.Mutex
	asked []string
	// ended are the deployments that figures were sent of.
	ended []Deployment
}

// Do implements aws.HTTPClient.
func (c *cloud) Do(r *http.Request) (*http.Response, error) {
	signed := regexp.MustCompile(`Credential=([^/]+)/\d+/([^/]+)/([^/]+)/`).FindStringSubmatch(r.Header.Get("Authorization"))
	if signed == nil {
		return nil, fmt.Errorf("%s %s is not signed", r.Method, r.URL)
	}
	who, region, service := signed[1], signed[2], signed[3]
	status, body := http.StatusOK, ""
	switch service {
	case "s3":
		body = c.s3(who, region, r)
	default:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(data))
		if err != nil {
			return nil, err
		}
		if body = c.query(who, region, form); body == "" {
			status, body = http.StatusBadRequest, `<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack does not exist</Message></Error></ErrorResponse>`
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// s3 has empty buckets without encryption settings that take everything.
func (c *cloud) s3(who, region string, r *http.Request) string {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	switch {
	case r.Method == http.MethodPut:
		c.note("%s in %s: put %s%s", who, region, r.URL.Host, r.URL.Path)
		return ""
	case r.URL.Query().Has("encryption"):
		return `<ServerSideEncryptionConfiguration/>`
	default:
		return `<ListBucketResult/>`
	}
}

func (c *cloud) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

// query answers STS and CloudFormation; empty for a refusal. Access keys are
// the names of roles.
func (c *cloud) query(who, region string, form url.Values) string {
	answer := func(body string) string {
		return fmt.Sprintf(`<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>`, form.Get("Action"), body)
	}
	name := form.Get("StackName")
	switch form.Get("Action") {
	case "GetCallerIdentity":
		return answer(`<Account>111111111111</Account><Arn>arn:aws:sts::111111111111:assumed-role/` + who + `/s</Arn><UserId>u</UserId>`)
	case "AssumeRole":
		role := form.Get("RoleArn")
		c.note("%s in %s: assume %s", who, region, role)
		return answer(`<Credentials><AccessKeyId>` + path.Base(role) + `</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>`)
	case "CreateChangeSet":
		c.note("%s in %s: change set of %s", who, region, name)
		return answer(`<Id>arn:aws:cloudformation:eu-west-1:111111111111:changeSet/c/` + name + `</Id><StackId>arn:aws:cloudformation:eu-west-1:111111111111:stack/` + name + `/1</StackId>`)
	case "DescribeChangeSet":
		set := form.Get("ChangeSetName")
		return answer(`<ChangeSetId>` + set + `</ChangeSetId><StackId>` + name + `</StackId><Status>CREATE_IN_PROGRESS</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus>`)
	default:
		return ""
	}
}

func (c *cloud) did() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// written synthesizes what lies in a folder.
type written struct {
	apps
	dir string
}

func (w written) Synth(context.Context, SynthRequest, io.Writer) (string, error) { return w.dir, nil }

// write makes the files of an assembly.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cdk.out")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// deployed runs the whole stage over an assembly and an account that exist on
// paper.
func deployed(t *testing.T, c *cloud, config string, assembly map[string]string) (task.Result, error) {
	t.Helper()
	s := New(Config{
		Workspace: still{config: config}, Synth: written{dir: write(t, assembly)}, Store: store.NewDir(t.TempDir()), Private: t.TempDir(),
		Base: func(context.Context) (aws.Config, error) {
			return aws.Config{Region: "eu-west-1", HTTPClient: c, Credentials: credentials.NewStaticCredentialsProvider("base", "s", "")}, nil
		},
	})
	req := task.Request{Run: task.Run{UID: "u1", Name: "shop-1"}, Pipeline: "shop", Environment: "dev", Stage: "deploy-dev", Commit: strings.Repeat("b", 40), ConfigPath: "aphex-config.yaml"}
	env := task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: &effects.Memory{}}
	s.cfg.Deployed = func(_ context.Context, _ task.Request, stacks []Deployment) error {
		c.ended = append(c.ended, stacks...)
		return nil
	}
	return s.Run(t.Context(), req, env)
}
