package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/record"
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
	p, _, _ := newSmall(t, l, name, r.use)
	cfg := config(
		[]string{
			`mkdir -p "$APHEX_ARTIFACTS/a folder"`,
			`head -c 20971520 /dev/urandom > "$APHEX_ARTIFACTS/large.bin"`, // more than one part
			`cp odd "$APHEX_ARTIFACTS/$(cat odd)"`,
		},
		dev(name, `echo "digest $(sha256sum < "$APHEX_ARTIFACTS/large.bin")"`, `cmp odd "$APHEX_ARTIFACTS/$(cat odd)"`),
	)
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
	requireDownload(t, l, p, first.Name, firstDigest)
	show, err := l.Aphex(t.Context(), "run", "show", first.Name, "-n", first.Namespace)
	require.NoError(t, err)
	require.Contains(t, show, "2, 20.0 MiB\n")

	second, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("build").Message+status.Node("build").Output("message"), "2 artifacts (1 unlike an earlier build's), ")
	secondDigest := digestSeen(t, l, status)
	require.NotEqual(t, firstDigest, secondDigest)
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
