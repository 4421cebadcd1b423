package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// Store is what all stores have in common.
type Store interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	Head(ctx context.Context, key string) (store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	Tags(ctx context.Context, key string) (map[string]string, error)
	URL(key string) string
}

// Target is one store under test.
type Target struct {
	// Store is empty and used by nobody else.
	Store Store
	// Overwrite replaces the bytes of an object behind the store's back,
	// keeping what is recorded of it.
	Overwrite func(t *testing.T, key string, content []byte)
	// LargeBytes is the size of the large object; above the part size for a
	// store that uploads in parts.
	LargeBytes int
	// KeepsTags is set for a service that, unlike S3, keeps the tags of an
	// object that is replaced by one without.
	KeepsTags bool
}

// Run checks the stores that open returns, one per check.
func Run(t *testing.T, open func(t *testing.T) Target) {
	t.Helper()
	for name, check := range map[string]func(t *testing.T, target Target){
		"round trip":                  roundTrip,
		"replaces":                    replaces,
		"not found":                   notFound,
		"if absent":                   ifAbsent,
		"one winner":                  oneWinner,
		"replaces the one seen":       replacesTheOneSeen,
		"one replaces":                oneReplaces,
		"head":                        head,
		"spooled":                     spooled,
		"long names":                  longNames,
		"list":                        list,
		"large object":                large,
		"damage is found":             damage,
		"unusable keys":               unusableKeys,
		"cancelled":                   cancelled,
		"broken body":                 brokenBody,
		"property: bytes come back":   bytesComeBack,
		"property: any damage is met": anyDamage,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, open(t))
		})
	}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func put(t require.TestingT, s Store, key string, content []byte, opts store.PutOptions) store.Object {
	object, err := s.Put(context.Background(), key, bytes.NewReader(content), opts)
	require.NoError(t, err)
	return object
}

func get(t require.TestingT, s Store, key string) ([]byte, store.Object) {
	body, object, err := s.Get(context.Background(), key)
	require.NoError(t, err)
	content, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return content, object
}

func requireFault(t require.TestingT, err error) {
	f, ok := errors.AsType[*fault.Fault](err)
	require.True(t, ok, "%v is no fault", err)
	require.Equal(t, fault.StoreFailed, f.Reason)
	require.NotEmpty(t, f.Op)
}

func roundTrip(t *testing.T, target Target) {
	content := []byte("hello\n")
	tags := map[string]string{"commit-sha": "0123abc", "timestamp": "2026-01-02T03:04:05Z", "with space": "a+b/c=d@e"}
	object := put(t, target.Store, "runs/1/run.json", content, store.PutOptions{ContentType: "application/json", Tags: tags})
	require.NotEmpty(t, object.Version)
	require.Equal(t, store.Object{
		Version: object.Version,
		Key:     "runs/1/run.json", URL: target.Store.URL("runs/1/run.json"), Size: int64(len(content)), SHA256: digest(content),
		ContentType: "application/json", Tags: tags,
	}, object)

	back, found := get(t, target.Store, "runs/1/run.json")
	require.Equal(t, content, back)
	object.Tags = nil
	require.Equal(t, object, found)
	stored, err := target.Store.Tags(t.Context(), "runs/1/run.json")
	require.NoError(t, err)
	require.Equal(t, tags, stored)
}

func replaces(t *testing.T, target Target) {
	put(t, target.Store, "k", []byte("first, and longer"), store.PutOptions{Tags: map[string]string{"a": "b"}})
	put(t, target.Store, "k", nil, store.PutOptions{})
	content, object := get(t, target.Store, "k")
	require.Empty(t, content)
	require.Zero(t, object.Size)
	require.Equal(t, "application/octet-stream", object.ContentType)
	tags, err := target.Store.Tags(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, target.KeepsTags || len(tags) == 0, "%v", tags)
}

func notFound(t *testing.T, target Target) {
	_, _, err := target.Store.Get(t.Context(), "nowhere/at-all")
	require.ErrorIs(t, err, store.ErrNotFound)
	requireFault(t, err)
	_, err = target.Store.Tags(t.Context(), "nowhere/at-all")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func ifAbsent(t *testing.T, target Target) {
	put(t, target.Store, "lock", []byte("first"), store.PutOptions{IfAbsent: true})
	_, err := target.Store.Put(t.Context(), "lock", bytes.NewReader([]byte("second")), store.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, store.ErrExists)
	requireFault(t, err)
	_, err = target.Store.Put(t.Context(), "lock", bytes.NewReader([]byte("first")), store.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, store.ErrExists, "also with equal content")
	content, _ := get(t, target.Store, "lock")
	require.Equal(t, "first", string(content))
}

func replacesTheOneSeen(t *testing.T, target Target) {
	_, err := target.Store.Put(t.Context(), "k", bytes.NewReader(nil), store.PutOptions{Replaces: `"0123"`})
	require.ErrorIs(t, err, store.ErrChanged, "there is none")
	requireFault(t, err)
	first := put(t, target.Store, "k", []byte("first"), store.PutOptions{})
	_, seen := get(t, target.Store, "k")
	require.Equal(t, first.Version, seen.Version)
	described, err := target.Store.Head(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, first.Version, described.Version)
	second := put(t, target.Store, "k", []byte("second"), store.PutOptions{Replaces: first.Version})
	_, err = target.Store.Put(t.Context(), "k", bytes.NewReader([]byte("third")), store.PutOptions{Replaces: first.Version})
	require.ErrorIs(t, err, store.ErrChanged)
	requireFault(t, err)
	content, seen := get(t, target.Store, "k")
	require.Equal(t, "second", string(content))
	require.Equal(t, second.Version, seen.Version)

	// What is damaged is replaced by the version that was read with it.
	target.Overwrite(t, "k", []byte("changed"))
	body, broken, err := target.Store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, body.Close())
	put(t, target.Store, "k", []byte("mended"), store.PutOptions{Replaces: broken.Version})
	content, _ = get(t, target.Store, "k")
	require.Equal(t, "mended", string(content))
}

func oneReplaces(t *testing.T, target Target) {
	old := put(t, target.Store, "race", []byte("old"), store.PutOptions{})
	var winners atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			_, err := target.Store.Put(t.Context(), "race", bytes.NewReader(fmt.Append(nil, "writer ", i)), store.PutOptions{Replaces: old.Version})
			if err == nil {
				winners.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, winners.Load())
}

func oneWinner(t *testing.T, target Target) {
	var winners atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			_, err := target.Store.Put(t.Context(), "race", bytes.NewReader(fmt.Append(nil, "writer ", i)), store.PutOptions{IfAbsent: true})
			if err == nil {
				winners.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, winners.Load())
	content, _ := get(t, target.Store, "race")
	require.Contains(t, string(content), "writer ")
}

func head(t *testing.T, target Target) {
	_, err := target.Store.Head(t.Context(), "k")
	require.ErrorIs(t, err, store.ErrNotFound)
	requireFault(t, err)
	stored := put(t, target.Store, "k", []byte("data"), store.PutOptions{ContentType: "text/plain", Tags: map[string]string{"a": "b"}})
	object, err := target.Store.Head(t.Context(), "k")
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), object.Modified, time.Hour)
	object.Modified, stored.Tags = time.Time{}, nil
	require.Equal(t, stored, object)

	target.Overwrite(t, "k", []byte("longer data"))
	object, err = target.Store.Head(t.Context(), "k")
	require.NoError(t, err)
	require.EqualValues(t, len("longer data"), object.Size, "the size is that of the bytes that are there")
}

func spooled(t *testing.T, target Target) {
	for _, content := range [][]byte{nil, []byte("small"), bytes.Repeat([]byte("x"), target.LargeBytes)} {
		body, err := store.Spool(t.Context(), io.MultiReader(bytes.NewReader(content)))
		require.NoError(t, err)
		require.Equal(t, digest(content), body.SHA256())
		require.EqualValues(t, len(content), body.Size())
		_, err = io.CopyN(io.Discard, body, int64(len(content)/2)) // looked into before
		require.NoError(t, err)
		for _, key := range []string{"first", "second"} {
			object, err := target.Store.Put(t.Context(), key, body, store.PutOptions{})
			require.NoError(t, err)
			require.Equal(t, digest(content), object.SHA256)
			back, _ := get(t, target.Store, key)
			require.True(t, bytes.Equal(content, back))
		}
		body.Close()
	}
	broken := errors.New("the worker went away")
	_, err := store.Spool(t.Context(), iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

// longNames are as long as file systems allow, or continue one another.
func longNames(t *testing.T, target Target) {
	for _, key := range []string{strings.Repeat("n", 255), "d/" + strings.Repeat("ü", 127), "x", "x.json/y"} {
		put(t, target.Store, key, []byte(key), store.PutOptions{})
		content, _ := get(t, target.Store, key)
		require.Equal(t, key, string(content))
	}
}

func list(t *testing.T, target Target) {
	objects, err := target.Store.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, objects)
	for _, key := range []string{"b/2", "a/1", "b/10", "ba"} {
		put(t, target.Store, key, []byte(key), store.PutOptions{})
	}
	for prefix, want := range map[string][]string{
		"": {"a/1", "b/10", "b/2", "ba"}, "b": {"b/10", "b/2", "ba"}, "b/": {"b/10", "b/2"}, "c": nil,
	} {
		objects, err := target.Store.List(t.Context(), prefix)
		require.NoError(t, err)
		var keys []string
		for _, object := range objects {
			keys = append(keys, object.Key)
			require.WithinDuration(t, time.Now(), object.Modified, time.Hour)
			object.Modified = time.Time{}
			require.Equal(t, store.Object{Key: object.Key, URL: target.Store.URL(object.Key), Size: int64(len(object.Key))}, object)
		}
		require.Equal(t, want, keys, "prefix %q", prefix)
	}
}

func large(t *testing.T, target Target) {
	content := make([]byte, target.LargeBytes)
	_, err := rand.Read(content)
	require.NoError(t, err)
	// A reader that cannot seek, as a stream from the worker.
	object, err := target.Store.Put(t.Context(), "large", io.MultiReader(bytes.NewReader(content)), store.PutOptions{Tags: map[string]string{"a": "b"}})
	require.NoError(t, err)
	require.EqualValues(t, len(content), object.Size)
	back, found := get(t, target.Store, "large")
	require.True(t, bytes.Equal(content, back))
	require.Equal(t, digest(content), found.SHA256)

	_, err = target.Store.Put(t.Context(), "large", bytes.NewReader(content), store.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, store.ErrExists)
}

func damage(t *testing.T, target Target) {
	for name, content := range map[string]string{"changed": "dAta", "shorter": "dat", "longer": "data!", "empty": ""} {
		put(t, target.Store, name, []byte("data"), store.PutOptions{})
		target.Overwrite(t, name, []byte(content))
		requireDamaged(t, target.Store, name)
	}
}

func requireDamaged(t require.TestingT, s Store, key string) {
	body, _, err := s.Get(context.Background(), key)
	if err == nil {
		_, err = io.ReadAll(body)
		require.NoError(t, body.Close())
	}
	require.ErrorIs(t, err, store.ErrDamaged)
	requireFault(t, err)
}

func unusableKeys(t *testing.T, target Target) {
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".", "a\nb", string(make([]byte, 1025))} {
		_, err := target.Store.Put(t.Context(), key, bytes.NewReader(nil), store.PutOptions{})
		requireFault(t, err)
		_, _, err = target.Store.Get(t.Context(), key)
		requireFault(t, err)
	}
}

func cancelled(t *testing.T, target Target) {
	put(t, target.Store, "k", []byte("v"), store.PutOptions{})
	cause := errors.New("the run was stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := target.Store.Put(ctx, "k", bytes.NewReader([]byte("new")), store.PutOptions{})
	require.ErrorIs(t, err, cause)
	_, err = target.Store.List(ctx, "")
	require.ErrorIs(t, err, cause)
	content, _ := get(t, target.Store, "k")
	require.Equal(t, "v", string(content))
}

func brokenBody(t *testing.T, target Target) {
	broken := errors.New("the worker went away")
	_, err := target.Store.Put(t.Context(), "k", io.MultiReader(bytes.NewReader([]byte("half")), iotest.ErrReader(broken)), store.PutOptions{})
	require.ErrorIs(t, err, broken)
	_, _, err = target.Store.Get(t.Context(), "k")
	require.ErrorIs(t, err, store.ErrNotFound, "no half object")
}

func bytesComeBack(t *testing.T, target Target) {
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.StringMatching(`[a-zA-Z0-9é +&=_.~!'()*-]{1,20}`).Draw(rt, "key") + "x/obj"
		content := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "content")
		put(rt, target.Store, key, content, store.PutOptions{})
		back, object := get(rt, target.Store, key)
		require.True(rt, bytes.Equal(content, back))
		require.Equal(rt, digest(content), object.SHA256)
	})
}

func anyDamage(t *testing.T, target Target) {
	rapid.Check(t, func(rt *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 1, 500).Draw(rt, "content")
		put(rt, target.Store, "object", content, store.PutOptions{})
		at := rapid.IntRange(0, len(content)-1).Draw(rt, "at")
		content[at] ^= byte(1 << rapid.IntRange(0, 7).Draw(rt, "bit"))
		target.Overwrite(t, "object", content)
		requireDamaged(rt, target.Store, "object")
	})
}
