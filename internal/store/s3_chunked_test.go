package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// TestS3_ReadsAnAnswerWithoutItsLength: a proxy on the way may pass an object
// on in chunks, without Content-Length.
func TestS3_ReadsAnAnswerWithoutItsLength(t *testing.T) {
	t.Parallel()
	content := []byte("forty-two")
	sum := sha256.Sum256(content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.Path != "/bucket/key" {
			http.Error(w, "unexpected "+r.Method+" "+r.URL.Path, http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Amz-Meta-Aphex-Sha256", hex.EncodeToString(sum[:]))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		_, _ = w.Write(content)
	}))
	t.Cleanup(server.Close)
	s := store.NewS3(aws.Config{
		Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	}, "bucket", "")
	body, object, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	got, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.Equal(t, content, got)
	require.EqualValues(t, -1, object.Size)
	object, err = s.Head(t.Context(), "key")
	require.NoError(t, err)
	require.EqualValues(t, -1, object.Size)
	require.Equal(t, hex.EncodeToString(sum[:]), object.SHA256)
}
