package store_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// conflicts answers conditional Puts of "content" with codes, in turn; the last
// one stays. Nothing but a real S3 under load answers 409.
func conflicts(t *testing.T, codes ...string) *store.S3 {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodPut && (r.Header.Get("If-None-Match") != "*" || !strings.Contains(string(body), "content")) {
			http.Error(w, fmt.Sprintf("unexpected %s %s (%v): %q", r.Method, r.URL.Path, err, body), http.StatusBadRequest)
			return
		}
		if r.Method != http.MethodPut { // a look at who was first
			w.WriteHeader(http.StatusNotFound)
			return
		}
		code := codes[0]
		codes = codes[min(1, len(codes)-1):]
		switch code {
		case "":
			return
		case "PreconditionFailed":
			w.WriteHeader(http.StatusPreconditionFailed)
		default:
			w.WriteHeader(http.StatusConflict)
		}
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>not now</Message></Error>", code)
	}))
	t.Cleanup(server.Close)
	return store.NewS3(aws.Config{
		Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	}, "bucket", "")
}

func TestS3_ConditionalPutThatMeetsAnotherIsTriedAgain(t *testing.T) {
	t.Parallel()
	const busy = "ConditionalRequestConflict"
	put := func(s *store.S3) error {
		_, err := s.Put(t.Context(), "key", strings.NewReader("content"), store.PutOptions{IfAbsent: true})
		return err
	}
	require.NoError(t, put(conflicts(t, busy, busy, "")), "the other one did not come through")
	require.ErrorIs(t, put(conflicts(t, busy, "PreconditionFailed")), store.ErrExists, "the other one was first")
	err := put(conflicts(t, busy))
	require.ErrorContains(t, err, "another writer")
	require.Equal(t, fault.Transient, fault.From(err).Class)
}

// The answer to a replacement is lost, so the SDK asks again, and finds that
// the object is another one: its own.
func TestS3_ReplacementWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	var puts atomic.Int32
	var id atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead:
			w.Header().Set("X-Amz-Meta-Aphex-Put", fmt.Sprint(id.Load()))
			w.Header().Set("ETag", `"v2"`)
		case r.Header.Get("If-Match") != `"v1"`:
			w.WriteHeader(http.StatusBadRequest)
		case puts.Add(1) == 1:
			id.Store(r.Header.Get("X-Amz-Meta-Aphex-Put"))
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusPreconditionFailed)
			_, _ = fmt.Fprint(w, "<Error><Code>PreconditionFailed</Code></Error>")
		}
	}))
	t.Cleanup(server.Close)
	s := store.NewS3(aws.Config{
		Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	}, "bucket", "")
	object, err := s.Put(t.Context(), "key", strings.NewReader("content"), store.PutOptions{Replaces: `"v1"`})
	require.NoError(t, err)
	require.Equal(t, `"v2"`, object.Version)

	id.Store("another's")
	_, err = s.Put(t.Context(), "key", strings.NewReader("content"), store.PutOptions{Replaces: `"v1"`})
	require.ErrorIs(t, err, store.ErrChanged)
}
