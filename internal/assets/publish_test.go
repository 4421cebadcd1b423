package assets_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const owner = "111111111111"

// bucketServer is one S3 endpoint that checks what it receives.
type bucketServer struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	objects    map[string][]byte
	headers    map[string]http.Header
	encryption string // body of GetBucketEncryption; empty: none; "denied"
	puts       int
	// encryptionReads are calls of GetBucketEncryption.
	encryptionReads int
	aborted         int
	// onPut is called with the key before an object or part is taken; it may
	// wait.
	onPut func(key string)
}

func newBucket(t *testing.T) *bucketServer {
	t.Helper()
	b := &bucketServer{t: t, objects: map[string][]byte{}, headers: map[string]http.Header{}}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *bucketServer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if b.onPut != nil && r.Method == http.MethodPut {
		b.onPut(key)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	query := r.URL.Query()
	switch {
	case bucket == "abroad" && r.Header.Get("X-Amz-Expected-Bucket-Owner") != "":
		refuse(w, http.StatusForbidden, "AccessDenied")
	case bucket != "abroad" && r.Header.Get("X-Amz-Expected-Bucket-Owner") != owner:
		refuse(w, http.StatusBadRequest, "MissingExpectedBucketOwner")
	case bucket == "absent":
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case bucket == "foreign":
		refuse(w, http.StatusForbidden, "AccessDenied")
	case query.Get("list-type") == "2":
		b.list(w, query.Get("prefix"))
	case query.Has("encryption"):
		b.encryptionReads++
		b.encrypt(w)
	case r.Method == http.MethodPost && query.Has("uploads"):
		b.headers[key] = r.Header
		_, _ = fmt.Fprintf(w, `<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>`, bucket, key)
	case r.Method == http.MethodPut && query.Has("partNumber"):
		checkSum(b.t, r, body)
		b.objects[key] = append(b.objects[key], body...) // the publisher's parts arrive in order in this test's sizes or are compared by length
		w.Header().Set("ETag", `"e"`)
	case r.Method == http.MethodPost && query.Has("uploadId"):
		b.puts++
		_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodDelete:
		b.aborted++
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		checkSum(b.t, r, body)
		b.puts++
		b.objects[key], b.headers[key] = body, r.Header
	default:
		refuse(w, http.StatusNotImplemented, "NotImplemented")
	}
}

func checkSum(t *testing.T, r *http.Request, body []byte) {
	t.Helper()
	sum := sha256.Sum256(body)
	if got := r.Header.Get("X-Amz-Checksum-Sha256"); got != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("checksum header is %q", got)
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<Error><Code>%s</Code><Message>no</Message></Error>`, code)
}

func (b *bucketServer) list(w http.ResponseWriter, prefix string) {
	type content struct {
		Key  string `xml:"Key"`
		Size int    `xml:"Size"`
	}
	var out struct {
		XMLName  xml.Name  `xml:"ListBucketResult"`
		Contents []content `xml:"Contents"`
	}
	for key, data := range b.objects {
		if strings.HasPrefix(key, prefix) {
			out.Contents = append(out.Contents, content{Key: key, Size: len(data)})
		}
	}
	_ = xml.NewEncoder(w).Encode(out)
}

func (b *bucketServer) encrypt(w http.ResponseWriter) {
	switch b.encryption {
	case "":
		refuse(w, http.StatusNotFound, "ServerSideEncryptionConfigurationNotFoundError")
	case "denied":
		refuse(w, http.StatusForbidden, "AccessDenied")
	default:
		_, _ = fmt.Fprintf(w, `<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>%s</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`, b.encryption)
	}
}

func (b *bucketServer) config() aws.Config {
	return aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(b.url), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
}

func (b *bucketServer) file(path, key string, zip bool) assets.File {
	return assets.File{ID: key, Name: "asset " + key, Path: path, Zip: zip, Bucket: "staging", Key: key, AWS: b.config()}
}

// assembly is a folder with one plain file and one folder asset.
func assembly(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "t.json"), []byte(`{"Resources": {"A": {"Type": "x"}}}`), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "asset.site", "bin"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "asset.site", "index.html"), []byte("hello"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "asset.site", "bin", "run"), []byte("#!/bin/sh\n"), 0o755))
	require.NoError(t, os.Symlink("bin/run", filepath.Join(dir, "asset.site", "start")))
	return dir
}

func TestPublish_FileAndZip(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.encryption = `<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>key-1</KMSMasterKeyID>`
	files := []assets.File{b.file("t.json", "t1.json", false), b.file("asset.site", "site.zip", true), b.file("asset.site", "site.zip", true)}
	p := assets.New(assembly(t), owner, nil)
	got, err := p.Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: 2}, got)
	require.Equal(t, 2, b.puts)
	require.Equal(t, "application/json", b.headers["t1.json"].Get("Content-Type"))
	require.Equal(t, "application/zip", b.headers["site.zip"].Get("Content-Type"))
	require.Equal(t, "aws:kms", b.headers["t1.json"].Get("X-Amz-Server-Side-Encryption"))
	require.Equal(t, "key-1", b.headers["t1.json"].Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))

	data := b.objects["site.zip"]
	reader, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	modes := map[string]os.FileMode{}
	for _, f := range reader.File {
		modes[f.Name] = f.Mode()
	}
	require.Equal(t, map[string]os.FileMode{"bin/run": 0o755, "index.html": 0o600, "start": 0o755}, modes)

	again, err := p.Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Present: 2}, again)
	require.Equal(t, 2, b.puts, "what is there is not sent again")
}

func TestPublish_EncryptionHeadersFollowTheBucket(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"": "", "denied": "", `<SSEAlgorithm>AES256</SSEAlgorithm>`: "AES256"} {
		b := newBucket(t)
		b.encryption = name
		_, err := assets.New(assembly(t), owner, nil).Publish(t.Context(), []assets.File{b.file("t.json", "t.json", false)})
		require.NoError(t, err)
		require.Equal(t, want, b.headers["t.json"].Get("X-Amz-Server-Side-Encryption"))
	}
}

// However many assets go to a bucket at once, it is asked once how it encrypts.
func TestPublish_AsksOnceHowABucketEncrypts(t *testing.T) {
	t.Parallel()
	b, dir := newBucket(t), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.txt"), []byte("a"), 0o600))
	var files []assets.File
	for i := range 100 {
		files = append(files, assets.File{ID: "a", Name: "a", Path: "a.txt", Bucket: "bucket", Key: fmt.Sprintf("%d.txt", i), AWS: b.config()})
	}
	summary, err := assets.New(dir, owner, nil).Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, 100, summary.Published)
	require.Equal(t, 100, b.puts)
	require.Equal(t, 1, b.encryptionReads)
}

func TestPublish_BrokenUploadAndLongerKeyAreNotTakenForTheAsset(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.objects["site.zip"] = bytes.Repeat([]byte("x"), 22)
	b.objects["t.json.bak"] = bytes.Repeat([]byte("x"), 100)
	got, err := assets.New(assembly(t), owner, nil).Publish(t.Context(), []assets.File{b.file("asset.site", "site.zip", true), b.file("t.json", "t.json", false)})
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: 2}, got)
}

func TestPublish_ByForce(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.objects["t.json"] = bytes.Repeat([]byte("x"), 100)
	p := assets.New(assembly(t), owner, nil)
	got, err := p.Publish(t.Context(), []assets.File{b.file("t.json", "t.json", false)})
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Present: 1}, got)
	p.Force()
	got, err = p.Publish(t.Context(), []assets.File{b.file("t.json", "t.json", false)})
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: 1}, got)
	require.NotEqual(t, bytes.Repeat([]byte("x"), 100), b.objects["t.json"])
}

func TestPublish_LargeAssetGoesInParts(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	dir := assembly(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big.bin"), bytes.Repeat([]byte("0123456789"), 2_000_000), 0o600))
	_, err := assets.New(dir, owner, nil).Publish(t.Context(), []assets.File{b.file("big.bin", "big.bin", false)})
	require.NoError(t, err)
	require.Len(t, b.objects["big.bin"], 20_000_000)
	require.Equal(t, "application/octet-stream", b.headers["big.bin"].Get("Content-Type"))
}

//nolint:tparallel // the subtests share one server
func TestPublish_Refuses(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	dir := assembly(t)
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "asset.bad"), 0o750))
	require.NoError(t, os.Symlink("../t.json", filepath.Join(dir, "asset.bad", "up")))
	in := func(f assets.File, bucket string) assets.File { f.Bucket = bucket; return f }
	tests := []struct {
		name   string
		file   assets.File
		reason fault.Reason
		text   string
	}{
		{"absent bucket", in(b.file("t.json", "k", false), "absent"), fault.NotBootstrapped, "cdk bootstrap aws://111111111111/eu-west-1"},
		{"foreign bucket", in(b.file("t.json", "k", false), "foreign"), fault.AssetFailed, "belongs to account 111111111111"},
		{"missing source", b.file("nobody", "k", false), fault.AssetFailed, "nobody"},
		{"path that leads out", b.file("../x", "k", false), fault.AssetFailed, "leads outside"},
		{"link that leads out", b.file("link", "k", false), fault.AssetFailed, "link"},
		{"link out of the packaged folder", b.file("asset.bad", "k", true), fault.AssetFailed, "up"},
		{"file to package", b.file("t.json", "k", true), fault.AssetFailed, "not a folder"},
		{"folder as a file", b.file("asset.site", "k", false), fault.AssetFailed, "not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := assets.New(dir, owner, nil).Publish(t.Context(), []assets.File{tt.file})
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			require.Contains(t, fault.Message(err), tt.text)
			require.Empty(t, b.objects, "no truncated object appears")
		})
	}
}

func TestPublish_BucketOfAnotherAccountOnlyWhereItIsMeant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.txt"), []byte("x"), 0o600))
	for _, allowed := range []bool{true, false} {
		b := newBucket(t)
		publisher := assets.New(dir, owner, nil)
		asked := 0
		publisher.AllowForeign(func(context.Context) (bool, error) { asked++; return allowed, nil })
		file := func(bucket string) assets.File {
			return assets.File{ID: bucket, Name: "a", Path: "a.txt", Bucket: bucket, Key: bucket + ".txt", AWS: b.config()}
		}
		_, err := publisher.Publish(t.Context(), []assets.File{file("own"), file("abroad")})
		require.Equal(t, 1, asked, "only a refusal raises the question")
		if allowed {
			require.NoError(t, err)
			require.Equal(t, 2, b.puts)
			continue
		}
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssetFailed})
		require.LessOrEqual(t, b.puts, 1)
	}
}

func TestForeignBucketsAllowed(t *testing.T) {
	t.Parallel()
	type outputs = map[string]string
	for name, tt := range map[string]struct {
		outputs outputs
		err     error
		want    bool
	}{
		"old bootstrap with a bucket":   {outputs{"BucketName": "b", "BootstrapVersion": "20"}, nil, false},
		"roles that guard themselves":   {outputs{"BucketName": "b", "BootstrapVersion": "21"}, nil, true},
		"bootstrap without a bucket":    {outputs{"BucketName": "***", "BootstrapVersion": "6"}, nil, true},
		"no bootstrap":                  {outputs{}, nil, true},
		"bootstrap that cannot be read": {nil, errors.New("denied"), true},
		"version that is not a number":  {outputs{"BucketName": "b", "BootstrapVersion": "x"}, nil, true},
	} {
		got, err := assets.ForeignBucketsAllowed(t.Context(), func(_ context.Context, key string) (string, bool, error) {
			value, ok := tt.outputs[key]
			return value, ok, tt.err
		})
		require.NoError(t, err, name)
		require.Equal(t, tt.want, got, name)
	}
}

func TestPublish_EndedContextReportsItsCause(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := assets.New(assembly(t), owner, nil).Publish(ctx, []assets.File{b.file("t.json", "t.json", false)})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
}

func TestCheckBootstrap(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		required        int
		parameter, code string // value in SSM, or its refusal
		output          string
		noParameter     bool
		reason          fault.Reason
		text            string
	}{
		{name: "nothing required"},
		{name: "enough", required: 6, parameter: "33"},
		{name: "too low", required: 6, parameter: "5", reason: fault.NotBootstrapped, text: "says version 5, but the stacks need 6"},
		{name: "text", required: 6, parameter: "new", reason: fault.NotBootstrapped, text: `"new", not a number`},
		{name: "absent", required: 6, code: "ParameterNotFound", reason: fault.NotBootstrapped, text: "SSM parameter /v does not exist"},
		{name: "denied and an old stack", required: 3, code: "AccessDeniedException", output: "4"},
		{name: "denied and a new stack", required: 6, code: "AccessDeniedException", output: "33", reason: fault.AWSRejected, text: "AccessDenied"},
		{name: "denied and no stack", required: 6, code: "AccessDeniedException", reason: fault.AWSRejected, text: "AccessDenied"},
		{name: "no parameter name", required: 6, noParameter: true, output: "33"},
		{name: "no parameter name and no stack", required: 6, noParameter: true, reason: fault.NotBootstrapped, text: "CDKToolkit does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				if tt.code != "" {
					w.WriteHeader(http.StatusBadRequest)
					_, _ = fmt.Fprintf(w, `{"__type": %q, "message": "no"}`, tt.code)
					return
				}
				_, _ = fmt.Fprintf(w, `{"Parameter": {"Name": "/v", "Value": %q}}`, tt.parameter)
			}))
			defer server.Close()
			cfg := aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
			r := assets.Requirement{Version: tt.required, Parameter: "/v"}
			if tt.noParameter {
				r.Parameter = ""
			}
			err := assets.CheckBootstrap(t.Context(), cfg, owner, r, func(context.Context) (string, bool, error) { return tt.output, tt.output != "", nil })
			if tt.reason == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			require.Contains(t, fault.Message(err), tt.text)
		})
	}
}
