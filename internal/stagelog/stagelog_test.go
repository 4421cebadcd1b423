package stagelog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const quick = 5 * time.Millisecond

func id() stagelog.ID {
	return stagelog.ID{RunUID: "uid-1", Stage: "deploy-env", Environment: "dev", Epoch: "2026-11-24T06:00:00Z", Attempt: 2}
}

func TestID_KeysNeedNoQuotingAndSortByTry(t *testing.T) {
	t.Parallel()
	require.Equal(t, "runs/uid-1/logs/deploy-env-dev/20261124T060000Z-2.log", id().Key())
}

// pod is one pod's directory; bucket outlives it.
func begin(t require.TestingT, ctx context.Context, dir string, bucket stagelog.Store, start int) *stagelog.Log {
	require.DirExists(t, dir)
	return stagelog.Open(ctx, stagelog.Config{Dir: dir, Store: bucket, Every: quick}, id(), start)
}

func read(t require.TestingT, s stagelog.Store, key string) string {
	body, _, err := s.Get(context.Background(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return string(data)
}

// seen copies what a cursor finds until it holds want.
func seen(t *testing.T, c *stagelog.Cursor, got *bytes.Buffer, want string) {
	t.Helper()
	require.Eventually(t, func() bool {
		require.NoError(t, c.Copy(t.Context(), got))
		return strings.Contains(got.String(), want)
	}, 20*time.Second, quick)
}

func only(t *testing.T, s stagelog.Store) stagelog.Entry {
	t.Helper()
	var entries []stagelog.Entry
	require.Eventually(t, func() bool {
		var err error
		entries, err = stagelog.List(t.Context(), s, "uid-1")
		require.NoError(t, err)
		return len(entries) == 1
	}, 20*time.Second, quick)
	return entries[0]
}

func TestLog_IsReadableWhileItIsWritten(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	log := begin(t, t.Context(), t.TempDir(), bucket, 1)
	log.Append([]byte("one"))
	entry := only(t, bucket)
	require.Equal(t, "deploy-dev", entry.Stage)
	require.False(t, entry.Complete)
	cursor, got := stagelog.NewCursor(bucket, "uid-1", entry), &bytes.Buffer{}
	seen(t, cursor, got, "one\n")
	log.Append([]byte("two"))
	seen(t, cursor, got, "two\n")
	log.Append([]byte("three"))
	object, err := log.Finish(t.Context())
	require.NoError(t, err)
	require.Equal(t, id().Key(), object.Key)
	require.NoError(t, cursor.Copy(t.Context(), got))
	require.True(t, cursor.Complete())
	require.Equal(t, "one\ntwo\nthree\n", got.String())
	require.Equal(t, got.String(), read(t, bucket, id().Key()))
	require.True(t, only(t, bucket).Complete)
}

func TestLog_KilledProcessLosesOnlyWhatItHadNotUploaded(t *testing.T) {
	t.Parallel()
	for name, samePod := range map[string]bool{"the next one is in another pod": false, "the next one is in the same pod": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket, dir := store.NewDir(t.TempDir()), t.TempDir()
			held := &switchable{Store: bucket}
			killed := begin(t, t.Context(), dir, held, 1)
			t.Cleanup(func() { killed.Detach(t.Context()) }) // only to end the test's goroutine
			killed.Append([]byte("one"))
			cursor, got := stagelog.NewCursor(bucket, "uid-1", only(t, bucket)), &bytes.Buffer{}
			seen(t, cursor, got, "one\n")
			held.set(true)
			killed.Append([]byte("not uploaded"))
			want := "one\nnot uploaded\ntwo\n"
			if !samePod {
				dir, want = t.TempDir(), "one\ntwo\n"
			}
			next := begin(t, t.Context(), dir, bucket, 2)
			next.Append([]byte("two"))
			seen(t, cursor, got, "two\n")
			require.Equal(t, want, got.String())
			_, err := next.Finish(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, read(t, bucket, id().Key()))
		})
	}
}

func TestLog_DetachUploadsWhatIsLeft(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	old := stagelog.Open(t.Context(), stagelog.Config{Dir: t.TempDir(), Store: bucket, Every: time.Hour}, id(), 1)
	old.Append([]byte("one"))
	old.Detach(t.Context())
	next := stagelog.Open(t.Context(), stagelog.Config{Dir: t.TempDir(), Store: bucket, Every: time.Hour}, id(), 2)
	next.Append([]byte("two"))
	_, err := next.Finish(t.Context())
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", read(t, bucket, id().Key()))
}

func TestLog_UnreachableBucketIsTheErrorOfFinishAlone(t *testing.T) {
	t.Parallel()
	held := &switchable{Store: store.NewDir(t.TempDir()), down: true}
	log := begin(t, t.Context(), t.TempDir(), held, 1)
	log.Append([]byte("one"))
	_, err := log.Finish(t.Context())
	require.ErrorIs(t, err, errDown)
	log.Append([]byte("after the end"))
}

func TestLog_WithoutDirectoryTheStageGoesOn(t *testing.T) {
	t.Parallel()
	log := stagelog.Open(t.Context(), stagelog.Config{Dir: t.TempDir() + "/missing", Store: store.NewDir(t.TempDir())}, id(), 1)
	log.Append([]byte("one"))
	_, err := log.Finish(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestLog_AnySequenceOfProcessesMakesOneWholeLog: processes are detached at
// any point, in pods new and old; nothing is lost, doubled or out of order.
func TestLog_AnySequenceOfProcessesMakesOneWholeLog(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		base := t.TempDir()
		bucket := store.NewDir(base + "/bucket")
		var want strings.Builder
		starts, dir := rapid.IntRange(1, 4).Draw(rt, "starts"), ""
		for start := 1; start <= starts; start++ {
			if dir == "" || rapid.Bool().Draw(rt, "new pod") {
				dir = fmt.Sprintf("%s/pod-%d", base, start)
				require.NoError(rt, os.Mkdir(dir, 0o700))
			}
			every := rapid.SampledFrom([]time.Duration{time.Microsecond, time.Hour}).Draw(rt, "every")
			log := stagelog.Open(t.Context(), stagelog.Config{Dir: dir, Store: bucket, Every: every}, id(), start)
			for n, size := range rapid.SliceOfN(rapid.IntRange(0, 40_000), 0, 6).Draw(rt, "lines") {
				line := strings.Repeat(string(rune('a'+n)), size)
				log.Append([]byte(line))
				want.WriteString(line + "\n")
			}
			if start < starts {
				log.Detach(t.Context())
				continue
			}
			_, err := log.Finish(t.Context())
			require.NoError(rt, err)
		}
		require.Equal(rt, want.String(), read(rt, bucket, id().Key()))
	})
}

// TestLog_SendsAndStoresLittle bounds what a slow and a fast log cost.
func TestLog_SendsAndStoresLittle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lines, size   int
		objects, sent float64
	}{
		// One line in each interval: an object for every twelve lines.
		"slow": {lines: 60, size: 80, objects: 5, sent: 6.5},
		// Each interval brings more than a part is allowed to grow to.
		"fast": {lines: 8, size: 100_000, objects: 8, sent: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			counted := &counting{Store: store.NewDir(t.TempDir())}
			log := begin(t, t.Context(), t.TempDir(), counted, 1)
			written := 0
			for range c.lines {
				log.Append(bytes.Repeat([]byte("x"), c.size-1))
				written += c.size
				require.Eventually(t, func() bool { return counted.covered() == written }, 20*time.Second, time.Millisecond)
			}
			require.LessOrEqual(t, float64(len(counted.parts)), c.objects)
			require.LessOrEqual(t, float64(counted.sent)/float64(written), c.sent)
			_, err := log.Finish(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestList_IsInTheOrderTheStagesRan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bucket := store.NewDir(dir)
	for _, epoch := range []string{"2026-11-24T07:00:00Z", "2026-11-24T06:00:00Z"} {
		for _, stage := range []string{"test", "deploy-env", "finish", "deploy-pipeline", "build", "validate"} {
			one := stagelog.ID{RunUID: "uid-1", Stage: stage, Epoch: epoch}
			if stage == "test" || stage == "deploy-env" {
				one.Environment = "dev"
			}
			_, err := bucket.Put(t.Context(), one.Key(), strings.NewReader("x\n"), store.PutOptions{})
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(filepath.Join(dir, one.Key()), time.Time{}, time.Unix(1_800_000_000, 0)))
		}
	}
	entries, err := stagelog.List(t.Context(), bucket, "uid-1")
	require.NoError(t, err)
	got := make([]string, 0, len(entries))
	for _, e := range entries {
		got = append(got, e.Stage)
	}
	stages := []string{"validate", "build", "deploy-pipeline", "deploy-dev", "test-dev", "finish"}
	require.Equal(t, append(stages, stages...), got)
	require.Less(t, entries[0].Try, entries[6].Try)
}

var errDown = errors.New("the bucket is away")

// switchable is a bucket whose writes can be made to fail.
type switchable struct {
	stagelog.Store
	mu   sync.Mutex
	down bool
}

func (s *switchable) set(down bool) { s.mu.Lock(); defer s.mu.Unlock(); s.down = down }

func (s *switchable) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return store.Object{}, errDown
	}
	return s.Store.Put(ctx, key, body, opts)
}

// counting is a bucket that adds up what is sent to it.
type counting struct {
	stagelog.Store
	mu    sync.Mutex
	parts map[string]int64
	sent  int64
}

func (c *counting) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	object, err := c.Store.Put(ctx, key, body, opts)
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasPrefix(key, "live/") {
		if c.parts == nil {
			c.parts = map[string]int64{}
		}
		c.parts[key], c.sent = object.Size, c.sent+object.Size
	}
	return object, err
}

// covered is how many bytes of the log are in the bucket.
func (c *counting) covered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := int64(0)
	for _, size := range c.parts {
		total += size
	}
	return int(total)
}
