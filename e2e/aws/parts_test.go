package aws

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEdit_ChangesOnlyItsFunction(t *testing.T) {
	t.Parallel()
	source := "import x\n\ndef a(p):\n    one(p)\n\n\ndef b(p):\n    one(p)\n"
	got, err := edit{file: "f.py", function: "b", anchor: "one(p)", before: "zero(p); ", after: "; two(p)"}.apply(source)
	require.NoError(t, err)
	require.Equal(t, "import x\n\ndef a(p):\n    one(p)\n\n\ndef b(p):\n    zero(p); one(p); two(p)\n", got)

	got, err = edit{file: "f.py", function: "a", anchor: "one(p)", instead: "three(p)"}.apply(source)
	require.NoError(t, err)
	require.Equal(t, "import x\n\ndef a(p):\n    three(p)\n\n\ndef b(p):\n    one(p)\n", got)
}

func TestEdit_StopsWhenTheTextIsNotThereOnce(t *testing.T) {
	t.Parallel()
	source := "\ndef a(p):\n    one(p)\n    one(p)\n"
	for name, e := range map[string]edit{
		"has no function c": {file: "f.py", function: "c", anchor: "one(p)"},
		"is there 0 times":  {file: "f.py", function: "a", anchor: "two(p)"},
		"is there 2 times":  {file: "f.py", function: "a", anchor: "one(p)"},
	} {
		_, err := e.apply(source)
		require.ErrorContains(t, err, name)
	}
}

func TestCheckAccepted_RefusesIgnoredKeys(t *testing.T) {
	t.Parallel()
	answer := `[{"id":1,"service":"s3"},{"id":2,"service":"sts","times":1}]`
	require.NoError(t, checkAccepted([]byte(`[{"service":"sts","times":1}]`), []byte(answer)))
	require.ErrorContains(t, checkAccepted([]byte(`[{"service":"sts","tmes":1}]`), []byte(answer)), "tmes")
	require.ErrorContains(t, checkAccepted([]byte(`{}`), []byte(answer)), "not a JSON array")
	require.ErrorContains(t, checkAccepted([]byte(`[{},{},{}]`), []byte(answer)), "3 rules were sent, 2 are there")
}

func TestRecorder_NamesOperations(t *testing.T) {
	t.Parallel()
	const scope = "AWS4-HMAC-SHA256 Credential=111111111111/20260101/eu-west-1/%s/aws4_request, SignedHeaders=host, Signature=x"
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
	tests := []struct {
		name, method, path, body, service string
		header                            map[string]string
		want                              string
	}{
		{name: "query protocol", method: "POST", path: "/", body: "Action=CreateChangeSet&StackName=s", service: "cloudformation", header: form, want: "cloudformation CreateChangeSet"},
		{name: "unsigned token exchange", method: "POST", path: "/", body: "Action=AssumeRoleWithWebIdentity&RoleArn=r", header: form, want: "sts AssumeRoleWithWebIdentity"},
		{name: "json protocol", method: "POST", path: "/", body: "{}", service: "ssm", header: map[string]string{"X-Amz-Target": "AmazonSSM.GetParameter"}, want: "ssm GetParameter"},
		{name: "cbor protocol", method: "POST", path: "/service/GraniteServiceVersion20100801/operation/PutMetricData", service: "monitoring", want: "monitoring PutMetricData"},
		{name: "rest", method: "GET", path: "/2015-03-31/functions", service: "lambda", want: "lambda GET /2015-03-31/functions"},
		{name: "put object", method: "PUT", path: "/bucket/key/a", service: "s3", want: "s3 PutObject"},
		{name: "head bucket", method: "HEAD", path: "/bucket", service: "s3", want: "s3 HeadBucket"},
		{name: "list", method: "GET", path: "/bucket?list-type=2&prefix=a", service: "s3", want: "s3 ListObjectsV2"},
		{name: "location", method: "GET", path: "/bucket?location", service: "s3", want: "s3 GetBucketLocation"},
		{name: "multipart", method: "POST", path: "/bucket/key?uploads", service: "s3", want: "s3 CreateMultipartUpload"},
		{name: "part", method: "PUT", path: "/bucket/key?partNumber=1&uploadId=u", service: "s3", want: "s3 UploadPart"},
		{name: "encryption", method: "GET", path: "/bucket/?encryption", service: "s3", want: "s3 GetBucketEncryption"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			req := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
			if test.service != "" {
				req.Header.Set("Authorization", strings.Replace(scope, "%s", test.service, 1))
			}
			for key, value := range test.header {
				req.Header.Set(key, value)
			}
			var call Call
			describe(&call, req)
			describeBody(&call, req.Header.Get("Content-Type"), []byte(test.body))
			require.Equal(t, test.want, call.Service+" "+call.Operation)
			if test.service != "" {
				require.Equal(t, "111111111111 eu-west-1", call.AccessKey+" "+call.Region)
			}
		})
	}
}

func TestRecorder_PassesALostAnswerOn(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(upstream.Close)
	r, err := startRecorder(t.Context(), "127.0.0.1:0", upstream.URL)
	require.NoError(t, err)
	e := &Emulator{config: Config{Address: "127.0.0.1"}, recorder: r}
	r.url = e.baseURL(r.port)
	t.Cleanup(func() { require.NoError(t, r.stop()) })

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.Endpoint()+"/x", strings.NewReader("body"))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	require.Error(t, err)
	require.Equal(t, int32(1), reached.Load())
	calls := e.Calls()
	require.Len(t, calls, 1)
	require.Zero(t, calls[0].Status)
	require.Equal(t, "body", string(calls[0].Body))
}

// Whoever has the beginning of an answer finds its call, though the rest of the
// answer is under way.
func TestRecorder_KeepsACallBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-req.Context().Done():
		}
	}))
	t.Cleanup(upstream.Close)
	r, err := startRecorder(t.Context(), "127.0.0.1:0", upstream.URL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	e := &Emulator{recorder: r}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/x", r.port), http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.Len(t, e.Calls(), 1)
	require.Equal(t, http.StatusAccepted, e.Calls()[0].Status)
	close(more)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Eventually(t, func() bool { return e.Calls()[0].Duration > 0 }, 10*time.Second, time.Millisecond)
	require.Len(t, e.Calls(), 1)
}
