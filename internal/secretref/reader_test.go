package secretref_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/secretref"
)

// newReader returns a reader among two Secrets of the namespace and an AWS
// that has one secret and one parameter and denies the others it knows.
func newReader(t *testing.T) (*secretref.Reader, *redact.Redactor) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			SecretID string `json:"SecretId"`
			Name     string `json:"Name"`
		}
		_ = json.NewDecoder(r.Body).Decode(&in) // an incomplete one names nothing
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		refuse := func(code string) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"__type": %q, "message": "no"}`, code)
		}
		switch r.Header.Get("X-Amz-Target") + " " + in.SecretID + in.Name {
		case "secretsmanager.GetSecretValue shop/npm":
			_, _ = fmt.Fprint(w, `{"SecretString": "{\"token\": \" from-secretsmanager \", \"number\": 3}"}`)
		case "AmazonSSM.GetParameter /shop/npm":
			_, _ = fmt.Fprint(w, `{"Parameter": {"Value": "from-ssm"}}`)
		case "secretsmanager.GetSecretValue shop/empty":
			_, _ = fmt.Fprint(w, `{"SecretString": " "}`)
		case "secretsmanager.GetSecretValue prod/database", "AmazonSSM.GetParameter /prod/database":
			refuse("AccessDeniedException")
		case "AmazonSSM.GetParameter /none":
			refuse("ParameterNotFound")
		default:
			refuse("ResourceNotFoundException")
		}
	}))
	t.Cleanup(server.Close)
	mounted := t.TempDir()
	for path, value := range map[string]string{"npm/..data/token": "from-kubernetes\n", "none/..data/x": ""} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(mounted, path)), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(mounted, path), []byte(value), 0o600))
	}
	require.NoError(t, os.Symlink("..data/token", filepath.Join(mounted, "npm/token"))) // as the kubelet does
	redactor := redact.New()
	return secretref.New(secretref.Config{
		Base: func(context.Context) (aws.Config, error) {
			return aws.Config{
				Region: "eu-west-1", BaseEndpoint: aws.String(server.URL),
				Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "s", ""),
			}, nil
		},
		Hide: redactor.Add, Mounted: mounted,
	}), redactor
}

func TestRead_FindsAndHides(t *testing.T) {
	t.Parallel()
	reader, redactor := newReader(t)
	for ref, want := range map[string]string{
		"secretsmanager:shop/npm#token": "from-secretsmanager",
		"ssm:/shop/npm":                 "from-ssm",
		"kubernetes:npm#token":          "from-kubernetes",
	} {
		got, err := reader.Read(t.Context(), ref)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, redact.Marker, redactor.String(want))
	}
}

func TestRead_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	reader, _ := newReader(t)
	for ref, want := range map[string]struct {
		reason fault.Reason
		text   string
	}{
		"secretsmanager:shop/none":       {fault.SecretMissing, "Create it in the account and region"},
		"secretsmanager:shop/npm#none":   {fault.SecretMissing, `no JSON object with a text "none"`},
		"secretsmanager:shop/npm#number": {fault.SecretMissing, `no JSON object with a text "number"`},
		"secretsmanager:prod/database":   {fault.SecretDenied, "Allow secretsmanager:GetSecretValue"},
		"secretsmanager:shop/empty":      {fault.SecretUnusable, "the value is empty"},
		"ssm:/none":                      {fault.SecretMissing, "ParameterNotFound"},
		"ssm:/prod/database":             {fault.SecretDenied, "Allow ssm:GetParameter"},
		"kubernetes:npm#other":           {fault.SecretMissing, `the Secret npm has no key "other"`},
		"kubernetes:none#token":          {fault.SecretMissing, "there is no Secret none, or it has no keys. Create it in the pipeline's namespace"},
		"kubernetes:elsewhere#token":     {fault.SecretMissing, "not mounted in this pod. Start another run"},
		"kubernetes:npm#../npm/token":    {fault.SecretUnusable, "is no key of a Secret"},
		"kubernetes:..#npm":              {fault.SecretUnusable, "is no key of a Secret"},
		"kubernetes:npm":                 {fault.SecretUnusable, "kubernetes:<name of the Secret>#<key>"},
		"vault:npm":                      {fault.SecretUnusable, `begins with "vault"`},
	} {
		_, err := reader.Read(t.Context(), ref)
		require.ErrorIs(t, err, &fault.Fault{Reason: want.reason}, ref)
		require.Contains(t, fault.Message(err), want.text, ref)
	}
}
