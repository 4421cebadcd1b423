package record

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

func drawArtifact(t *rapid.T) Artifact {
	return Artifact{
		CommitSHA: drawText("commit").Draw(t, "commit"), Timestamp: drawTime(t, "stored"), Path: "p" + drawText("path").Draw(t, "path"), S3Path: drawText("place").Draw(t, "place"),
		ArtifactType: rapid.SampledFrom([]ArtifactType{LambdaLayer, Binary, Package}).Draw(t, "type"), SizeBytes: rapid.Int64Range(0, 1<<50).Draw(t, "size"),
		Checksum: drawText("checksum").Draw(t, "checksum"), WorkflowID: drawText("id").Draw(t, "id"), WorkflowName: drawText("name").Draw(t, "name"),
		DiffersFrom: drawText("differs").Draw(t, "differs"),
	}
}

// Whatever stands in a list of artifacts, it reads back as it was, and adds up.
func TestArtifacts_ListRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		r, list := New(store.NewDir(dir)), rapid.SliceOfN(rapid.Custom(drawArtifact), 0, 4).Draw(t, "list")
		require.NoError(t, r.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), list))
		read, err := r.Artifacts(t.Context(), "u1")
		require.NoError(t, err)
		require.ElementsMatch(t, list, read)
		total, err := r.total(t.Context(), "u1")
		require.NoError(t, err)
		var size int64
		for _, artifact := range list {
			size += artifact.SizeBytes
		}
		require.Equal(t, &ArtifactTotal{Count: len(list), SizeBytes: size}, total)
	})
}

func TestArtifacts_OfACommit(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	commit, other := strings.Repeat("ab", 20), "abc"+strings.Repeat("0", 37)
	put := func(uid, commit string, minute int, list ...Artifact) {
		t.Helper()
		for i := range list {
			list[i].WorkflowID = uid
		}
		require.NoError(t, r.PutArtifacts(t.Context(), uid, commit, at.Add(time.Duration(minute)*time.Minute), list))
	}
	// uids do not sort like times; u9 was retried, and made page differently.
	put("u9", commit, 0, Artifact{Path: "page", S3Path: commit + "/page"})
	put("u9", commit, 1, Artifact{Path: "page", S3Path: "variants/1/page", DiffersFrom: "x"}, Artifact{Path: "app", S3Path: commit + "/app"})
	put("u1", commit, 2, Artifact{Path: "page", S3Path: commit + "/page"}, Artifact{Path: "app", S3Path: commit + "/app"})
	put("u2", other, 3, Artifact{Path: "page", S3Path: other + "/page"})
	put("u3", strings.Repeat("cd", 20), 3)

	for _, given := range []string{commit, "aba"} {
		found, commits, err := r.ArtifactsOf(t.Context(), given)
		require.NoError(t, err)
		require.Equal(t, []string{commit}, commits)
		var got []string
		for _, artifact := range found {
			got = append(got, artifact.WorkflowID+" "+artifact.S3Path)
		}
		require.Equal(t, []string{"u9 " + commit + "/app", "u1 " + commit + "/page", "u9 variants/1/page"}, got)
	}
	found, commits, err := r.ArtifactsOf(t.Context(), "ab")
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, []string{commit, other}, commits)
	_, commits, err = r.ArtifactsOf(t.Context(), "cd")
	require.NoError(t, err)
	require.Empty(t, commits, "a build without artifacts is not among them")
}

func TestArtifacts_ASuccessorHasItsPredecessors(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	require.ErrorIs(t, r.InheritArtifacts(t.Context(), "u1", "u2"), store.ErrNotFound)
	require.NoError(t, r.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), []Artifact{{Path: "app", S3Path: "c1/app", WorkflowID: "u1", SizeBytes: 7}}))
	require.NoError(t, r.InheritArtifacts(t.Context(), "u1", "u2"))
	list, err := r.Artifacts(t.Context(), "u2")
	require.NoError(t, err)
	require.Equal(t, "u1", list[0].WorkflowID, "who built it does not change")

	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u2"}))
	run, err := r.Show(t.Context(), "u2")
	require.NoError(t, err)
	require.Equal(t, &ArtifactTotal{Count: 1, SizeBytes: 7}, run.Artifacts)
	run, _, err = r.Finish(t.Context(), run, Succeeded, time.Unix(60, 0))
	require.NoError(t, err)
	require.Equal(t, &ArtifactTotal{Count: 1, SizeBytes: 7}, run.Artifacts)
	run.Artifacts = nil
	require.NoError(t, r.Put(t.Context(), run))
	run, err = r.Show(t.Context(), "u2")
	require.NoError(t, err)
	require.Equal(t, &ArtifactTotal{Count: 1, SizeBytes: 7}, run.Artifacts, "the closer has closed it")
	run, _, err = r.Finish(t.Context(), Run{WorkflowID: "u3"}, Failed, time.Unix(60, 0))
	require.NoError(t, err)
	require.Nil(t, run.Artifacts)
}

func TestArtifacts_AListThatCannotBeReadKeepsNoRecordOpen(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	r := New(bucket)
	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u1"}))
	_, err := bucket.Put(t.Context(), ArtifactsKey("u1"), strings.NewReader("[{"), store.PutOptions{})
	require.NoError(t, err)
	_, err = r.Artifacts(t.Context(), "u1")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
	run, err := r.Show(t.Context(), "u1")
	require.NoError(t, err)
	require.Nil(t, run.Artifacts)
	run, _, err = r.Finish(t.Context(), run, Succeeded, time.Unix(60, 0))
	require.NoError(t, err)
	require.NotNil(t, run.CompletedAt)
}

func TestArtifacts_ListsOfTheFirstVersionHavePaths(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	_, err := bucket.Put(t.Context(), ArtifactsKey("u1"), strings.NewReader(`[{"commit_sha":"c1","s3_path":"s3://bucket/c1/d/app"}]`), store.PutOptions{})
	require.NoError(t, err)
	list, err := New(bucket).Artifacts(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, "d/app", list[0].Path)
}

func TestArtifacts_MoreThanAListHoldsAreRefused(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	list := make([]Artifact, 4000)
	for i := range list {
		list[i] = Artifact{Path: strings.Repeat("p", 768), S3Path: strings.Repeat("s", 1024), DiffersFrom: strings.Repeat("d", 1024)}
	}
	require.NoError(t, r.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), list), "some thousands, whatever their names")
	err := r.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), slices.Repeat(list, 8))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ArtifactRefused})
	require.ErrorContains(t, err, "32000 files are too many")
	read, err := r.Artifacts(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, read, 4000, "nothing that cannot be read is stored")
}

// A build that is killed and repeated later leaves no second trace of itself.
func TestArtifacts_ARepeatedBuildIsFoundOnce(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	r := New(bucket)
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u1", CommitSHA: "c1", TriggeredAt: at}))
	for minute := range 3 {
		require.NoError(t, r.PutArtifacts(t.Context(), "u1", "c1", at.Add(time.Duration(minute)*time.Minute), []Artifact{{Path: "app", S3Path: "c1/app"}}))
	}
	listed, err := bucket.List(t.Context(), artifactIndexPrefix)
	require.NoError(t, err)
	require.Len(t, listed, 1)
	require.Equal(t, artifactIndexKey("c1", "u1", at), listed[0].Key)
}
