package build_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
)

// npmSecret is the value of a secret that builds of these tests ask for.
const npmSecret = "npm-secret-that-is-long-enough"

const npmSection = "  secrets: {NPM_AUTH: \"kubernetes:npm#token\"}\n"

func newSecretBench(t *testing.T, section string) *bench {
	t.Helper()
	b := newBench(t, pod.Config{}, section, nil)
	b.secrets, b.allowed = map[string]string{"kubernetes:npm#token": npmSecret, "ssm:/short": "12345"}, []string{"kubernetes:npm", "ssm:/short"}
	return b
}

func TestRun_CommandsGetTheSecretsTheyAreGivenByName(t *testing.T) {
	t.Parallel()
	b := newSecretBench(t, commands("mkdir artifacts", `printf %s "$NPM_AUTH" | sha256sum > artifacts/digest`)+npmSection)
	_, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(b.object(t, b.request.Commit+"/digest")), fmt.Sprintf("%x", sha256.Sum256([]byte(npmSecret))))
	packed, err := zstd.NewReader(bytes.NewReader(b.object(t, record.SnapshotKey(b.request.Run.UID))))
	require.NoError(t, err)
	defer packed.Close()
	var snapshot bytes.Buffer
	_, err = snapshot.ReadFrom(packed)
	require.NoError(t, err)
	require.NotContains(t, snapshot.String(), npmSecret)

	without := newSecretBench(t, commands("mkdir artifacts", `printf %s "${NPM_AUTH-unset}" > artifacts/value`))
	_, err = without.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, "unset", string(without.object(t, without.request.Commit+"/value")))
}

// Nothing runs unless every secret is there, and all problems are told at once.
func TestRun_SecretsThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, secrets string
		reason        fault.Reason
		texts         []string
	}{
		{"not allowed", `A: "secretsmanager:prod/database#password"`, fault.SecretDenied, []string{
			"give the build commands the secret A", "installation does not allow secretsmanager:prod/database", "add secretsmanager:prod/database to buildSecrets",
		}},
		{"missing", `A: "kubernetes:npm#other"`, fault.SecretMissing, []string{"the secret A: read kubernetes:npm#other: there is none", "Create it"}},
		{"too short to hide", `A: "ssm:/short"`, fault.SecretUnusable, []string{"less than 6 bytes and could not be hidden in logs"}},
		{"several", `A: "kubernetes:npm#other", B: "ssm:/elsewhere", C: "kubernetes:npm#token"`, fault.SecretMissing, []string{
			"2 findings", "(1) give the build commands the secret A", "(2) give the build commands the secret B", "[SecretMissing]", "[SecretDenied]",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newSecretBench(t, commands("echo ran")+"  secrets: {"+tt.secrets+"}\n")
			_, err := b.run(t.Context())
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			for _, text := range tt.texts {
				require.Contains(t, fault.Message(err), text)
			}
			require.NotContains(t, b.log.String(), "ran")
			require.NotContains(t, fault.Message(err)+b.log.String(), "12345")
		})
	}
}

func TestRun_SecretsInWhatIsKeptFailTheBuild(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, command, section, text string }{
		{"in the snapshot", `echo "token=$NPM_AUTH" > settings.ini`, "", `"settings.ini" has the value of a secret`},
		{"in base64", `printf ":$NPM_AUTH" | base64 -w0 > settings.ini`, "", `"settings.ini" has the value of a secret`},
		{"in an artifact", `mkdir artifacts && echo "$NPM_AUTH" > artifacts/notes.txt`, "", "publish artifact notes.txt: it has the value of a secret"},
		{"left out", `echo "token=$NPM_AUTH" > settings.ini`, "  snapshot: {exclude: [settings.ini]}\n", ""},
		{"where secrets belong", `echo "//registry/:_authToken=$NPM_AUTH" > .npmrc`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newSecretBench(t, commands(tt.command)+npmSection+tt.section)
			_, err := b.run(t.Context())
			if tt.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.SecretLeaked})
			require.Contains(t, fault.Message(err), tt.text)
			require.False(t, strings.Contains(fault.Message(err), npmSecret))
		})
	}
}
