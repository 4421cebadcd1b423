package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/holes"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// folder is what a build left in its folder of artifacts.
type folder map[string][]byte

func (f folder) Stat(_ context.Context, paths []string) ([]worker.Entry, error) {
	return []worker.Entry{{Path: paths[0], Mode: fs.ModeDir | 0o755}}, nil
}

func (f folder) ReadTree(context.Context, string, []string) (io.ReadCloser, error) {
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(f[name])), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f[name]); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&tree), w.Close()
}

// publishes is one build of a commit by run uid, at a minute of the hour.
func publishes(ctx context.Context, objects bucket, uid, commit string, minute int, files folder) (published, error) {
	s := New(Config{Store: objects, Trees: files})
	s.now = func() time.Time { return time.Date(2026, 11, 24, 6, minute, 0, 123, time.UTC) }
	return s.publish(ctx, task.Request{Run: task.Run{UID: uid, Name: "shop-" + uid}, Commit: commit}, "artifacts", nil, io.Discard)
}

// buckets returns a function that makes empty buckets.
func buckets(t *testing.T) func() *store.Dir {
	t.Helper()
	dir, n := t.TempDir(), 0
	return func() *store.Dir {
		n++
		return store.NewDir(filepath.Join(dir, strconv.Itoa(n)))
	}
}

func drawCommit(t *rapid.T) string {
	return strings.Repeat(rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "commit"), 5)
}

// drawName is a path as people and tools make them. Folders have names of
// their own: a folder store cannot keep both "a" and "a/b".
func drawName() *rapid.Generator[string] {
	part := rapid.OneOf(
		rapid.StringMatching(`[A-CE-Za-ce-z0-9 ._+=@ä'"$&;*?#%\\-]{1,12}x`),
		rapid.SampledFrom([]string{".well-known", "..x", " x ", "ü€😀", "e\u0301", "%2e%2e", "$(rm -rf)", "a:b|c<d>", "CON", strings.Repeat("n", 250), "-rf", "\u2028x", "null"}),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(rapid.SampledFrom([]string{"d", "d d", ".d", "dä"}).Draw(t, "folder")+"/", rapid.IntRange(0, 2).Draw(t, "depth")) + part.Draw(t, "name")
	})
}

// content reads an object whole, which also verifies its digest.
func content(t require.TestingT, objects bucket, key string) []byte {
	body, _, err := objects.Get(context.Background(), key)
	require.NoError(t, err)
	got, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return got
}

// keyOf is the key of a list's entry.
func keyOf(t require.TestingT, objects bucket, artifact record.Artifact) string {
	key, found := strings.CutPrefix(artifact.S3Path, objects.URL("x")[:len(objects.URL("x"))-1])
	require.True(t, found, artifact.S3Path)
	return key
}

// requireList checks that a run's list says what the run built, and that the
// objects are exactly that.
func requireList(t require.TestingT, objects bucket, uid, commit string, files folder) []record.Artifact {
	list, err := record.New(objects).Artifacts(context.Background(), uid)
	require.NoError(t, err)
	var names []string
	for _, artifact := range list {
		names = append(names, artifact.Path)
		want := files[artifact.Path]
		sum := sha256.Sum256(want)
		require.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), artifact.Checksum)
		require.EqualValues(t, len(want), artifact.SizeBytes)
		require.Equal(t, []string{commit, uid, "shop-" + uid}, []string{artifact.CommitSHA, artifact.WorkflowID, artifact.WorkflowName})
		require.Contains(t, []record.ArtifactType{record.LambdaLayer, record.Binary, record.Package}, artifact.ArtifactType)
		key := keyOf(t, objects, artifact)
		require.Equal(t, key, artifact.Key())
		require.True(t, bytes.Equal(want, content(t, objects, key)), "%s has other bytes", key)
		tags, err := objects.Tags(context.Background(), key)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"commit-sha": commit, "timestamp": artifact.Timestamp.Format(time.RFC3339)}, tags)
		if artifact.DiffersFrom == "" {
			require.Equal(t, commit+"/"+artifact.Path, key)
			continue
		}
		require.Equal(t, objects.URL(commit+"/"+artifact.Path), artifact.DiffersFrom)
		require.False(t, bytes.Equal(want, content(t, objects, commit+"/"+artifact.Path)), "%s does not differ", artifact.Path)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(files)), names)
	return list
}

// Feature: aphex-pipeline, Property 4: Artifact tagging
// Feature: aphex-pipeline, Property 5: Artifact storage and retrieval
//
// Round trip: what was published can be read at its path, is the same, is
// tagged with commit and time, and its record tells the truth about it.
func TestPublish_RoundTrip(t *testing.T) {
	t.Parallel()
	newBucket := buckets(t)
	rapid.Check(t, func(t *rapid.T) {
		objects, commit := newBucket(), drawCommit(t)
		files := folder(rapid.MapOfN(drawName(), rapid.SliceOfN(rapid.Byte(), 0, 3000), 0, 4).Draw(t, "files"))
		got, err := publishes(t.Context(), objects, "u1", commit, 0, files)
		require.NoError(t, err)
		require.Len(t, got.artifacts, len(files))
		list := requireList(t, objects, "u1", commit, files)
		require.ElementsMatch(t, got.artifacts, list)
	})
}

// However often a commit is built, by whichever runs, with whatever outcome:
// an object never changes, each run's list leads to exactly its own bytes, and
// equal bytes are stored once.
func TestPublish_EqualBytesOnceOthersNeverLost(t *testing.T) {
	t.Parallel()
	newBucket := buckets(t)
	rapid.Check(t, func(t *rapid.T) {
		objects, commit := newBucket(), drawCommit(t)
		files := rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"app", "d/page.html", "layer.zip"}), rapid.IntRange(0, 2), 0, 3),
			func(made map[string]int) folder {
				files := folder{}
				for name, n := range made {
					files[name] = fmt.Append(nil, name, n)
				}
				return files
			})
		built, stored, variants := map[string]folder{}, map[string][]byte{}, map[string]struct{}{}
		for minute, uid := range rapid.SliceOfN(rapid.SampledFrom([]string{"u1", "u2", "u3"}), 1, 5).Draw(t, "runs") {
			built[uid] = files.Draw(t, "files")
			_, err := publishes(t.Context(), objects, uid, commit, minute, built[uid])
			require.NoError(t, err)
			for uid, files := range built {
				for _, artifact := range requireList(t, objects, uid, commit, files) {
					variants[artifact.Path+artifact.Checksum] = struct{}{}
				}
			}
			for _, prefix := range []string{commit + "/", "variants/" + commit + "/"} {
				all, err := objects.List(t.Context(), prefix)
				require.NoError(t, err)
				for _, object := range all {
					now := content(t, objects, object.Key)
					if first, known := stored[object.Key]; known {
						require.Equal(t, first, now, "%s has changed", object.Key)
					}
					stored[object.Key] = now
				}
			}
			require.Len(t, stored, len(variants), "each content of a path is stored once")
		}
	})
}

// errDead is what everything says after the process has died.
var errDead = errors.New("the process is dead")

// mortal is a bucket whose user dies at an operation, before or after its
// effect.
type mortal struct {
	*store.Dir

	mu    sync.Mutex
	left  int
	after bool
}

// alive reports whether the operation happens, and whether its answer arrives.
func (m *mortal) alive() (happens, answers bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left--
	return m.left > 0 || m.left == 0 && m.after, m.left > 0
}

func (m *mortal) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	happens, answers := m.alive()
	if !happens {
		return store.Object{}, errDead
	}
	object, err := m.Dir.Put(context.WithoutCancel(ctx), key, body, opts)
	if !answers {
		return store.Object{}, errDead
	}
	return object, err
}

func (m *mortal) Head(ctx context.Context, key string) (store.Object, error) {
	if _, answers := m.alive(); !answers {
		return store.Object{}, errDead
	}
	return m.Dir.Head(ctx, key)
}

func (m *mortal) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if _, answers := m.alive(); !answers {
		return nil, errDead
	}
	return m.Dir.List(ctx, prefix)
}

// A build that is repeated after its process died, at whatever operation, ends
// with the same list and the same objects as one that was not disturbed.
func TestPublish_RepeatedAfterADeathEndsTheSame(t *testing.T) {
	t.Parallel()
	newBucket := buckets(t)
	rapid.Check(t, func(t *rapid.T) {
		commit, calm := drawCommit(t), drawCommit(t)
		earlier, files := folder{"same": []byte("1"), "other": []byte("1")}, folder{"same": []byte("1"), "other": []byte("2"), "d/new": []byte("3")}
		objects := newBucket()
		publishTwice := func(commit string, die bool) []record.Artifact {
			_, err := publishes(t.Context(), objects, "u1", commit, 0, earlier)
			require.NoError(t, err)
			if die {
				dying := &mortal{Dir: objects, left: rapid.IntRange(1, 12).Draw(t, "operations"), after: rapid.Bool().Draw(t, "after")}
				_, err := publishes(t.Context(), dying, "u2", commit, 1, files)
				require.True(t, err == nil || errors.Is(err, errDead), "%v", err)
			}
			_, err = publishes(t.Context(), objects, "u2", commit, 1, files)
			require.NoError(t, err)
			return requireList(t, objects, "u2", commit, files)
		}
		undisturbed, disturbed := publishTwice(calm, false), publishTwice(commit, true)
		for i := range undisturbed {
			undisturbed[i].CommitSHA = commit
			undisturbed[i].S3Path = strings.Replace(undisturbed[i].S3Path, calm, commit, 1)
			undisturbed[i].DiffersFrom = strings.Replace(undisturbed[i].DiffersFrom, calm, commit, 1)
		}
		require.Equal(t, undisturbed, disturbed)
		for _, prefix := range []string{"", "variants/"} {
			before, err := objects.List(t.Context(), prefix+calm)
			require.NoError(t, err)
			after, err := objects.List(t.Context(), prefix+commit)
			require.NoError(t, err)
			require.Len(t, after, len(before))
		}
	})
}

// Two runs that publish at the same time do not take each other's place.
func TestPublish_TwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	newBucket := buckets(t)
	rapid.Check(t, func(t *rapid.T) {
		objects, commit := newBucket(), drawCommit(t)
		built := map[string]folder{
			"u1": {"same": []byte("1"), "a": []byte("1"), "b": []byte("1")},
			"u2": {"same": []byte("1"), "a": []byte("2"), "b": []byte("2")},
		}
		group, ctx := errgroup.WithContext(t.Context())
		for uid, files := range built {
			group.Go(func() error {
				_, err := publishes(ctx, objects, uid, commit, 0, files)
				return err
			})
		}
		require.NoError(t, group.Wait())
		for uid, files := range built {
			requireList(t, objects, uid, commit, files)
		}
	})
}

// meeting is a bucket whose Puts of artifacts wait for one another.
type meeting struct {
	*store.Dir

	mu          sync.Mutex
	now, most   int
	enough      int
	met         chan struct{}
	besideLarge int
}

func (m *meeting) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if opts.IfAbsent {
		m.mu.Lock()
		m.now++
		m.most = max(m.most, m.now)
		if m.now == m.enough && m.most == m.enough {
			close(m.met)
			m.enough = -1
		}
		large := strings.HasSuffix(key, "/large")
		if large {
			m.besideLarge = m.now - 1
		}
		m.mu.Unlock()
		defer func() { m.mu.Lock(); m.now--; m.mu.Unlock() }()
		if !large {
			select {
			case <-m.met:
			case <-ctx.Done():
				return store.Object{}, context.Cause(ctx)
			}
		}
	}
	return m.Dir.Put(ctx, key, body, opts)
}

// lengthless is a bucket behind a proxy that leaves lengths out.
type lengthless struct{ *store.Dir }

func (l lengthless) Head(ctx context.Context, key string) (store.Object, error) {
	object, err := l.Dir.Head(ctx, key)
	object.Size = -1
	return object, err
}

func TestPublish_EqualBytesWithoutTheirLengthAreEqual(t *testing.T) {
	t.Parallel()
	objects, commit := lengthless{store.NewDir(t.TempDir())}, strings.Repeat("ab", 20)
	for range 2 {
		got, err := publishes(t.Context(), objects, "u1", commit, 0, folder{"x": []byte("1")})
		require.NoError(t, err)
		require.Zero(t, got.differing)
	}
}

func TestPublish_SomeAtATimeAndLargeOnesAlone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("they never met"))
	defer cancel()
	files := folder{"large": bytes.Repeat([]byte("x"), largeArtifact)}
	for i := range 3 * uploadSlots { // both before and after the large one
		files[fmt.Sprintf("%c%d", "az"[i%2], i)] = []byte{byte(i)}
	}
	objects := &meeting{Dir: store.NewDir(t.TempDir()), enough: uploadSlots, met: make(chan struct{})}
	got, err := publishes(ctx, objects, "u1", strings.Repeat("ab", 20), 0, files)
	require.NoError(t, err)
	require.Len(t, got.artifacts, len(files))
	require.Equal(t, uploadSlots, objects.most)
	require.Zero(t, objects.besideLarge)
	requireList(t, objects, "u1", strings.Repeat("ab", 20), files)
}

func TestPublish_RefusesNamesThatNoObjectHas(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("n/", maxArtifactName/2-1) + "nn"
	for name, problem := range map[string]string{
		"../x": "leads out", "a/../../x": "leads out", "..": "leads out", "/etc/x": "leads out",
		"a\nb": "control characters", "a\x1b[31m": "control characters", "\xff": "not UTF-8", longest + "n": "it has 769 bytes, allowed are 768",
	} {
		objects := store.NewDir(t.TempDir())
		_, err := publishes(t.Context(), objects, "u1", strings.Repeat("ab", 20), 0, folder{name: []byte("x")})
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.ArtifactRefused}, name)
		require.ErrorContains(t, err, problem)
		require.Equal(t, fault.User, fault.From(err).Class)
		all, err := objects.List(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, all)
	}
	_, err := publishes(t.Context(), store.NewDir(t.TempDir()), "u1", strings.Repeat("ab", 20), 0, folder{longest: []byte("x")})
	require.NoError(t, err)
}

// holed is a worker that sends little and means a lot.
type holed struct {
	folder

	tree []byte
}

func (h holed) ReadTree(context.Context, string, []string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.tree)), nil
}

func TestPublish_RefusesFilesWithHoles(t *testing.T) {
	t.Parallel()
	s := New(Config{Store: store.NewDir(t.TempDir()), Trees: holed{tree: holes.Archive(t)}})
	_, err := s.publish(t.Context(), task.Request{Run: task.Run{UID: "u1"}, Commit: strings.Repeat("ab", 20)}, "artifacts", nil, io.Discard)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ArtifactRefused})
	require.ErrorContains(t, err, "publish artifact big: it was sent with holes")
}

// TestPublish_MeetsWhatOthersDidToTheBucket: objects of others are not
// overwritten, and one that claims to be a variant and is not is an error.
func TestPublish_MeetsWhatOthersDidToTheBucket(t *testing.T) {
	t.Parallel()
	commit, files := strings.Repeat("ab", 20), folder{"x": []byte("ours")}
	objects := store.NewDir(t.TempDir())
	_, err := objects.Put(t.Context(), commit+"/x", strings.NewReader("another's"), store.PutOptions{})
	require.NoError(t, err)
	got, err := publishes(t.Context(), objects, "u1", commit, 0, files)
	require.NoError(t, err)
	require.Equal(t, "1 artifact (1 unlike an earlier build's)", got.String())
	require.Equal(t, "another's", string(content(t, objects, commit+"/x")))

	_, err = objects.Put(t.Context(), keyOf(t, objects, got.artifacts[0]), strings.NewReader("another's"), store.PutOptions{})
	require.NoError(t, err)
	_, err = publishes(t.Context(), objects, "u2", commit, 0, files)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
	require.ErrorContains(t, err, "is not what its name says")
}
