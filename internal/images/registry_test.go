package images_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/images"
	"github.com/aphex-pipeline/aphex/internal/testkit/ecr"
)

// account owns the registry.
const account = "222222222222"

// cloud is a scripted ECR with one repository, "assets".
type cloud struct {
	*ecr.Registry
	control string
	// broken refuses calls of the control plane with a status and a code.
	status int
	code   string

	mu     sync.Mutex
	hidden []string
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{Registry: ecr.New("assets")}
	data := httptest.NewServer(c.Data())
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.status != 0 {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(`{"__type": "` + c.code + `", "message": "no"}`))
			return
		}
		c.Control().ServeHTTP(w, r)
	}))
	t.Cleanup(func() { data.Close(); control.Close(); require.Empty(t, c.Strange()) })
	c.Host, c.control = strings.TrimPrefix(data.URL, "http://"), control.URL
	return c
}

func (c *cloud) registry() *images.Registry {
	return images.NewRegistry(account, func(values ...string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hidden = append(c.hidden, values...)
	})
}

func (c *cloud) to(repository, tag string) images.Destination {
	return images.Destination{Name: "Api/Image", Repository: repository, Tag: tag, Session: "role", AWS: aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String(c.control), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}}
}

// image is one that was built.
func image(t *testing.T) *images.Image {
	t.Helper()
	b := newBench(t, images.Docker)
	built, err := b.builder("").Build(t.Context(), b.asset(nil), images.Docker, &bytes.Buffer{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, built.Close()) })
	return built
}

func TestRegistry_PushesOnce(t *testing.T) {
	t.Parallel()
	c, r := newCloud(t), (*images.Registry)(nil)
	r = c.registry()
	built := image(t)
	there, err := r.Present(t.Context(), c.to("assets", "one"))
	require.NoError(t, err)
	require.False(t, there)
	for _, tag := range []string{"one", "two"} {
		pushed, err := r.Push(t.Context(), built, c.to("assets", tag))
		require.NoError(t, err)
		require.True(t, pushed)
		there, err = r.Present(t.Context(), c.to("assets", tag))
		require.NoError(t, err)
		require.True(t, there)
	}
	require.Equal(t, []string{
		"DescribeRepositories assets", "DescribeImages assets:one", "GetAuthorizationToken", "PUT assets:one", "DescribeImages assets:one",
		"PUT assets:two", "DescribeImages assets:two",
	}, c.Calls(), "repository and token are asked for once")
	require.Contains(t, c.hidden, ecr.Password, "the token is hidden in logs before it is used")
}

// A tag of a bootstrap's repository cannot be written twice; whoever comes
// second finds what it wanted.
func TestRegistry_PushedTwiceOrAnswerLost(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	first, second := image(t), image(t)
	pushed, err := c.registry().Push(t.Context(), first, c.to("assets", "one"))
	require.NoError(t, err)
	require.True(t, pushed)
	pushed, err = c.registry().Push(t.Context(), second, c.to("assets", "one"))
	require.NoError(t, err)
	require.False(t, pushed, "it is there, whoever brought it")

	c = newCloud(t)
	c.Loses = 1
	_, err = c.registry().Push(t.Context(), first, c.to("assets", "one"))
	require.NoError(t, err)
	require.True(t, c.Has("assets", "one"))
	require.Zero(t, c.Loses, "the answer was lost")
}

func TestRegistry_Refuses(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	_, err := c.registry().Present(t.Context(), c.to("gone", "one"))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.NotBootstrapped})
	require.Contains(t, fault.Message(err), "repository gone does not exist")
	require.Contains(t, fault.Message(err), "cdk bootstrap aws://222222222222/eu-west-1")
	for code, want := range map[string]fault.Reason{
		"AccessDeniedException": fault.AssetFailed, "ThrottlingException": fault.AWSUnavailable, "InvalidParameterException": fault.AssetFailed,
	} {
		c.status, c.code = http.StatusBadRequest, code
		_, err = c.registry().Present(t.Context(), c.to("assets", "one"))
		require.ErrorIs(t, err, &fault.Fault{Reason: want}, code)
		require.Contains(t, fault.Message(err), code)
	}
}

func TestRegistry_RefusedPushSaysNoSecret(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refusing.Close()
	c.Host = strings.TrimPrefix(refusing.URL, "http://")
	_, err := c.registry().Push(t.Context(), image(t), c.to("assets", "one"))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssetFailed})
	require.Contains(t, fault.Message(err), "publishing role may read and write repository assets of account 222222222222")
	require.NotContains(t, fault.Message(err), ecr.Password)
}
