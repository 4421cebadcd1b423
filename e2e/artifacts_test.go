package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// oddName is an artifact whose name no shell and no address takes as it is.
const oddName = "a folder/.pägé 'x' & $(y)%20.txt"

// TestArtifacts_FromTheBuildToLaterStagesAndToPeople: what a build makes is
// there for the synthesis and the tests, at the place the variable names, and
// comes back byte for byte by the command line. A second build of the commit
// makes other bytes: both are kept, each for its run.
//
// Feature: aphex-pipeline, Property 5: Artifact storage and retrieval
func TestArtifacts_FromTheBuildToLaterStagesAndToPeople(t *testing.T) {
	t.Parallel()
	publishedTwice(t, pluginRunner())
}

func TestArtifacts_InStagePodsFromTheBuildToPeople(t *testing.T) {
	t.Parallel()
	publishedTwice(t, containerRunner())
}

func publishedTwice(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	name := "artifacts" + r.suffix
	p, _, _ := newSmall(t, l, name, r.use, func(i *pipeline.Installation) {
		i.BuildSecrets = []string{"kubernetes:" + name, "ssm:/e2e/secret-" + name}
	})
	makeSecrets(t, l, p, name)
	cfg := config(
		[]string{
			`echo "the secrets are $TOKEN and $STORED"`,
			`echo "secrets $(printf %s "$TOKEN$STORED" | sha256sum)"`,
			`mkdir -p ~/.kept && echo "cache has $(cat ~/.kept/by)"; echo "$APHEX_RUN" > ~/.kept/by`,
			`mkdir -p "$APHEX_ARTIFACTS/a folder"`,
			`head -c 20971520 /dev/urandom > "$APHEX_ARTIFACTS/large.bin"`, // more than one part
			`cp odd "$APHEX_ARTIFACTS/$(cat odd)"`,
		},
		dev(name, `echo "digest $(sha256sum < "$APHEX_ARTIFACTS/large.bin")"`, `cmp odd "$APHEX_ARTIFACTS/$(cat odd)"`, `test -z "${TOKEN-}${STORED-}"`),
	) + "cache: [{paths: [~/.kept], key: [odd]}]\n"
	cfg = strings.Replace(cfg, "build:\n", "build:\n  secrets: {TOKEN: \"kubernetes:"+name+"#token\", STORED: \"ssm:/e2e/secret-"+name+"\"}\n", 1)
	synth, err := os.ReadFile(filepath.Join("testdata", "small", "synth.sh"))
	require.NoError(t, err)
	commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{
		"aphex-config.yaml": cfg, "odd": oddName, "synth.sh": string(synth) + "test -s \"$APHEX_ARTIFACTS/large.bin\"\n",
	}})
	require.NoError(t, err)

	first, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "s3://"+p.Installation.Bucket+"/"+commit+"/", status.Node("build").Output("artifact-path"))
	require.Contains(t, status.Node("build").Message+status.Node("build").Output("message"), "2 artifacts, ")
	firstDigest := digestSeen(t, l, status)
	requireSecretsAndCache(t, object(t, l, status.Node("build").Output("log-url")), name, "")
	requireDownload(t, l, p, first.Name, firstDigest)
	show, err := l.Aphex(t.Context(), "run", "show", first.Name, "-n", first.Namespace)
	require.NoError(t, err)
	require.Contains(t, show, "2, 20.0 MiB\n")

	second, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("build").Message+status.Node("build").Output("message"), "2 artifacts (1 unlike an earlier build's), ")
	secondDigest := digestSeen(t, l, status)
	require.NotEqual(t, firstDigest, secondDigest)
	requireSecretsAndCache(t, object(t, l, status.Node("build").Output("log-url")), name, first.Name)
	requireDownload(t, l, p, second.Name, secondDigest)
	requireDownload(t, l, p, first.Name, firstDigest)

	text, err := l.Aphex(t.Context(), "artifacts", commit[:10], "--pipeline", name, "-n", first.Namespace, "-o", "json")
	require.NoError(t, err)
	var list []record.Artifact
	require.NoError(t, json.Unmarshal([]byte(text), &list))
	var checksums []string
	for _, artifact := range list {
		require.Equal(t, commit, artifact.CommitSHA)
		if artifact.Path == "large.bin" {
			require.Equal(t, record.Binary, artifact.ArtifactType)
			checksums = append(checksums, artifact.Checksum)
		}
	}
	require.Len(t, list, 3)
	require.Equal(t, []string{record.Checksum(firstDigest), record.Checksum(secondDigest)}, checksums)
}

// makeSecrets makes the two secrets that the build refers to.
func makeSecrets(t *testing.T, l *lab.Lab, p *lab.Pipeline, name string) {
	t.Helper()
	putParameter(t, l, "/e2e/secret-"+name, "parameter-of-"+name)
	_, err := l.Kubectl(t.Context(), nil, "create", "secret", "generic", name, "-n", p.Installation.Namespace, "--from-literal=token=secret-of-"+name)
	require.NoError(t, err)
}

// requireSecretsAndCache: the build had the secrets, its log has not, and it
// found what the run called by had left in the cache, if any.
func requireSecretsAndCache(t *testing.T, log, name, by string) {
	t.Helper()
	require.Contains(t, log, "the secrets are "+redact.Marker+" and "+redact.Marker+"\n")
	require.NotContains(t, log, "secret-of-"+name)
	require.NotContains(t, log, "parameter-of-"+name)
	require.Contains(t, log, fmt.Sprintf("secrets %x", sha256.Sum256([]byte("secret-of-"+name+"parameter-of-"+name))))
	require.Contains(t, log, "cache has "+by+"\n")
	if by == "" {
		require.Contains(t, log, "cache ~/.kept: kept ")
		return
	}
	require.Contains(t, log, "cache ~/.kept: restored ")
}

// digestSeen is the SHA-256 of large.bin that the test stage saw.
func digestSeen(t *testing.T, l *lab.Lab, status lab.Status) string {
	t.Helper()
	log := object(t, l, status.Node("test-dev").Output("log-url"))
	require.Contains(t, log, "artifacts: 2 verified in ")
	found := regexp.MustCompile(`(?m)^digest ([0-9a-f]{64}) `).FindStringSubmatch(log)
	require.Len(t, found, 2, log)
	return found[1]
}

// requireDownload gets what a run built, and compares it with what its tests
// saw.
func requireDownload(t *testing.T, l *lab.Lab, p *lab.Pipeline, run, digest string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	out, err := l.Aphex(t.Context(), "artifacts", "get", run, "-n", p.Installation.Namespace, "--dir", dir)
	require.NoError(t, err)
	require.Contains(t, out, "large.bin  20.0 MiB\n")
	content, err := os.ReadFile(filepath.Join(dir, "large.bin"))
	require.NoError(t, err)
	sum := sha256.Sum256(content)
	require.Equal(t, digest, hex.EncodeToString(sum[:]))
	odd, err := os.ReadFile(filepath.Join(dir, oddName))
	require.NoError(t, err)
	require.Equal(t, oddName, string(odd))
}
