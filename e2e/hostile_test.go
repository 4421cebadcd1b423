package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/cache"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// tries are the rows of docs/security.md: what was tried, and how it ended.
func tries(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	require.NoError(t, err)
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|.*\\| (contained|limit) \\|").FindAllStringSubmatch(string(page), -1) {
		require.NotContains(t, rows, row[1], "twice")
		rows[row[1]] = row[2]
	}
	return rows
}

// said are the verdicts in the logs of commands.
func said(logs ...string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^hostile: ([a-z-]+): (contained|limit)$`).FindAllStringSubmatch(strings.Join(logs, "\n"), -1) {
		found[m[1]] = m[2]
	}
	return found
}

// killers are what takes the worker down with it, each in a run of its own.
func killers() map[string]string {
	return map[string]string{
		"kill-everything": "kill -TERM 1; kill -KILL -1; sleep 60",
		"fill-memory":     `python3 -c "x = [bytearray(1 << 20) for _ in range(1 << 20)]"`,
		"fork-bomb":       "bomb() { bomb | bomb & }; bomb; sleep 60",
	}
}

// TestHostileCommands tries in a real pod what hostile code of a build would:
// what comes of it is what docs/security.md says, try by try.
func TestHostileCommands(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	rows := tries(t)
	require.GreaterOrEqual(t, len(rows), 30)
	for _, name := range append(slices.Collect(maps.Keys(killers())), "fill-disk") {
		require.Equal(t, "contained", rows[name], name)
		delete(rows, name)
	}
	p, _, ledger := newSmall(t, l, "hostile")
	cfg := config([]string{". ./ledger.sh; did build", ". ./hostile.sh"}, dev("hostile", "bash hostile-later.sh", ". ./ledger.sh; did test")) +
		"cache: [{paths: [cached], key: [hostile.sh]}]\n"
	cfg = strings.Replace(cfg, "build:\n", fmt.Sprintf("build:\n  env: {HOSTILE_API: %q, HOSTILE_NODE: %q}\n",
		clusterAddress(t, l, "service", "kubernetes", "{.spec.clusterIP}"),
		clusterAddress(t, l, "node", "", `{.items[0].status.addresses[?(@.type=="InternalIP")].address}`)), 1)
	write := map[string]string{pipeline.DefaultFile: cfg, "victim/file": "of the commit"}
	for _, name := range []string{"hostile.sh", "hostile-later.sh"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		write[name] = string(text)
	}
	commit, err := p.Push(t.Context(), gitserver.Change{Write: write})
	require.NoError(t, err)
	_, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	found := said(object(t, l, status.Node("build").Output("log-url")), object(t, l, status.Node("test-dev").Output("log-url")))
	if strings.Contains(status.Node("build").Message, " 1 artifact,") {
		found["links-in-artifacts"] = "contained"
	}
	base := "s3://" + p.Installation.Bucket + "/"
	found["links-in-snapshot"] = packed(t, object(t, l, base+record.SnapshotKey(status.UID)), "root-of-all", "up", "cdk.out", "victim")
	cached := keysBelow(t, l, p.Installation.Bucket, cache.Prefix(p.Installation.Pipeline, "main"))
	require.Len(t, cached, 1)
	found["links-in-cache"] = packed(t, object(t, l, base+cached[0]), "source/cached/passwd", "source/cached/folder")
	require.Equal(t, rows, found)
	require.Equal(t, map[string]int{"build": 1, "synth": 1, "test": 1}, ledger.ran())
}

// clusterAddress is an address that hostile code would have to guess.
func clusterAddress(t *testing.T, l *lab.Lab, kind, name, path string) string {
	t.Helper()
	args := []string{"get", kind, "-n", "default", "-o", "jsonpath=" + path}
	if name != "" {
		args = slices.Insert(args, 2, name)
	}
	address, err := l.Kubectl(t.Context(), nil, args...)
	require.NoError(t, err)
	require.NotEmpty(t, address)
	return address
}

// keysBelow are the keys of a bucket that begin with prefix.
func keysBelow(t *testing.T, l *lab.Lab, bucket, prefix string) []string {
	t.Helper()
	client := s3.NewFromConfig(l.AWS.Config(aws.AccountTools, "eu-west-1"), func(o *s3.Options) { o.UsePathStyle = true })
	listed, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	require.NoError(t, err)
	var keys []string
	for _, item := range listed.Contents {
		keys = append(keys, *item.Key)
	}
	return keys
}

// packed is contained if the archive has these links as links, and of the
// worker's own files nothing.
func packed(t *testing.T, archive string, links ...string) string {
	t.Helper()
	unpacked, err := zstd.NewReader(strings.NewReader(archive))
	require.NoError(t, err)
	defer unpacked.Close()
	var found []string
	in := tar.NewReader(unpacked)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		content, err := io.ReadAll(in)
		require.NoError(t, err)
		if strings.Contains(string(content), "root:x:0:0:") {
			return "limit"
		}
		// A snapshot has a folder of its own around the paths.
		if n := slices.IndexFunc(links, func(link string) bool { return h.Name == link || strings.HasSuffix(h.Name, "/"+link) }); n >= 0 && h.Typeflag == tar.TypeSymlink {
			found = append(found, links[n])
		}
	}
	require.ElementsMatch(t, links, found)
	return "contained"
}

// TestHostileCommands_ThatKillTheWorker: the build fails and says so; the
// sidecar, and with it the record, is not disturbed.
func TestHostileCommands_ThatKillTheWorker(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for name, command := range killers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _, _ := newSmall(t, l, name)
			cfg := config([]string{command}, dev(name, "true")) + "worker: {resources: {limits: {memory: 128Mi}}}\n"
			commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{pipeline.DefaultFile: cfg}})
			require.NoError(t, err)
			require.NoError(t, p.Apply(t.Context(), []byte(cfg)))
			_, status := finish(t, p, commit)
			require.Equal(t, "Failed", status.Phase, "%+v", status)
			node := status.Node("build")
			require.Equal(t, "Failed", node.Phase)
			require.Regexp(t, `\[(`+string(fault.WorkerLost)+`|`+string(fault.CommandFailed)+`)\]$`, node.Message)
			require.Contains(t, []string{"Omitted", ""}, status.Node("deploy-dev").Phase)
			rec, err := p.Record(t.Context(), status.UID)
			require.NoError(t, err)
			require.Equal(t, record.Failed, rec.Status, "closed by the run itself")
			require.Equal(t, node.Message, *record.FirstFailed(rec.Stages).ErrorMessage)
		})
	}
}

// TestHostileCommands_ThatFillTheDisk: the kubelet evicts the run's pod when it
// has more on the node's disk than its worker may have. The run ends by itself,
// and says so once the reconciler has seen it.
func TestHostileCommands_ThatFillTheDisk(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	ctx := limited(t)
	p, _, _ := newSmall(t, l, "fill-disk")
	cfg := config([]string{"head -c 200M /dev/zero >/workspace/home/full; sleep 600"}, dev("fill-disk", "true")) +
		"worker: {resources: {limits: {ephemeral-storage: 64Mi}}}\n"
	commit, err := p.Push(ctx, gitserver.Change{Write: map[string]string{pipeline.DefaultFile: cfg}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.NotEqual(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("build").Message, "ephemeral")
	aloneWithReconciler(t)
	rec, said := reconcileUntil(ctx, t, l, p, run, status.UID)
	require.Contains(t, said, "failed, AgentLost")
	require.Equal(t, string(fault.AgentLost), rec.Reason)
}
