package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// bucket holds what was put into it; whatever else is asked for is other.
type bucket struct {
	held  map[string]string
	other string
}

func (b *bucket) Put(_ context.Context, key string, body io.Reader, _ store.PutOptions) (store.Object, error) {
	text, err := io.ReadAll(body)
	b.held[key] = string(text)
	return store.Object{Key: key}, err
}

func (b *bucket) Get(_ context.Context, key string) (io.ReadCloser, store.Object, error) {
	text, ok := b.held[key]
	if !ok {
		text = b.other
	}
	if text == "" {
		return nil, store.Object{}, store.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(text)), store.Object{Key: key}, nil
}

const (
	epochOne   = "2026-11-24T06:00:00Z"
	exampleKey = "uid-1/" + epochOne + "/shop-1.build/0"
)

// example is a book as it is kept, with n executions.
func example(tb testing.TB, n int, s *shelf, limit int) []byte {
	tb.Helper()
	d := newDocument()
	d.Writer = writer{Generation: 2, PodUID: "pod-2"}
	for i := range n {
		e := &Entry{
			Key: exampleKey + strings.Repeat("x", i), Stage: "build", Node: "shop-1.build", Epoch: epochOne, Digest: "sha256:00", Starts: 1,
			Effects: map[string]json.RawMessage{"snapshot": json.RawMessage(`{"key":"k"}`)},
		}
		if i > 0 {
			e.Final, e.Phase = json.RawMessage(`{"node":{"phase":"Succeeded","message":"`+strings.Repeat("m", 300)+`"}}`), "Succeeded"
		}
		d.Entries[e.Key] = e
	}
	data, err := d.encode(tb.Context(), limit, s)
	require.NoError(tb, err)
	text, err := json.Marshal(data)
	require.NoError(tb, err)
	return text
}

// FuzzDocument: a book that is read is written again without loss, in whatever
// room there is; one that cannot be read is refused with a reason.
func FuzzDocument(f *testing.F) {
	b := &bucket{held: map[string]string{}}
	f.Add(example(f, 2, nil, maxConfigMap), "")
	f.Add(example(f, 3, newShelf(b, "uid-1"), 1500), "")
	for _, text := range b.held {
		f.Add(example(f, 3, newShelf(b, "uid-1"), 1500), text)
	}
	f.Add([]byte(`{"schema":"1"}`), "")
	f.Add([]byte(`{"schema":"3","writer":"{}"}`), "")
	f.Add([]byte(`{"schema":"1","writer":"7","note":"x"}`), "")
	f.Add([]byte(`{"schema":"1","`+entryKey("a")+`":"{\"key\":\"a\",\"final\":null}"}`), "")
	f.Add([]byte(`{"schema":"2","`+entryKey("a")+`":"{\"key\":\"a\",\"ref\":{\"object\":\"../x\",\"sha256\":\"\",\"size\":-1}}"}`), "{}")
	f.Fuzz(func(t *testing.T, text []byte, other string) {
		bounded.Here(t)
		var data map[string]string
		if json.Unmarshal(text, &data) != nil {
			return // the API server has no such ConfigMap
		}
		s := newShelf(&bucket{held: map[string]string{}, other: other}, "uid-1")
		d, err := decode(t.Context(), data, s)
		if err != nil {
			require.True(t, errors.Is(err, store.ErrNotFound) || fault.From(err).Reason == fault.JournalInvalid, "%v", err)
			return
		}
		for key, e := range d.Entries {
			require.Equal(t, key, e.Key)
			require.NotEqual(t, "null", string(e.Final))
			compact(t, e)
		}
		checkRoundTrip(t, d, maxConfigMap, s)
		checkRoundTrip(t, d, 1024, s)
		checkFits(t, d, 1024)
	})
}

// compact takes the white space out of an entry's JSON, which is not kept.
func compact(t *testing.T, e *Entry) {
	t.Helper()
	tight := func(raw json.RawMessage) json.RawMessage {
		if raw == nil {
			return nil
		}
		var out bytes.Buffer
		require.NoError(t, json.Compact(&out, raw))
		return out.Bytes()
	}
	e.Final = tight(e.Final)
	for name, value := range e.Effects {
		e.Effects[name] = tight(value)
	}
	if len(e.Effects) == 0 {
		e.Effects = nil
	}
}

// checkRoundTrip writes d into limit bytes and the bucket, and reads it again.
func checkRoundTrip(t *testing.T, d *document, limit int, s *shelf) {
	t.Helper()
	data, err := d.encode(t.Context(), limit, s)
	if err != nil {
		require.ErrorContains(t, err, "at most")
		return
	}
	require.LessOrEqual(t, weight(data), limit)
	again, err := decode(t.Context(), data, s)
	require.NoError(t, err)
	require.Equal(t, spelled(t, d), spelled(t, again))
}

// spelled is d as JSON, where equal moments in zones of equal offset are equal.
func spelled(t *testing.T, d *document) string {
	t.Helper()
	text, err := json.Marshal(d) //nolint:musttag // for the comparison alone
	require.NoError(t, err)
	return string(text)
}

// checkFits writes d where there is no bucket: what is left can be read.
func checkFits(t *testing.T, d *document, limit int) {
	t.Helper()
	data, err := d.encode(t.Context(), limit, nil)
	if err != nil {
		return
	}
	require.LessOrEqual(t, weight(data), limit)
	again, err := decode(t.Context(), data, nil)
	require.NoError(t, err)
	require.Len(t, again.Entries, len(d.Entries))
	for key, e := range d.Entries {
		require.Equal(t, e.Ended(), again.Entries[key].Ended())
		require.Equal(t, e.Phase, again.Entries[key].Phase)
	}
}

func weight(data map[string]string) int {
	n := 0
	for key, text := range data {
		n += len(key) + len(text)
	}
	return n
}

// The reply of a stage is given again byte for byte.
func TestEncode_KeepsRepliesAsTheyWere(t *testing.T) {
	t.Parallel()
	d := newDocument()
	d.Entries["a"] = &Entry{Key: "a", Final: json.RawMessage(`{"node":{"message":"a <b> && \u003c \u2028  "}}`)}
	data, err := d.encode(t.Context(), maxConfigMap, nil)
	require.NoError(t, err)
	again, err := decode(t.Context(), data, nil)
	require.NoError(t, err)
	require.Equal(t, string(d.Entries["a"].Final), string(again.Entries["a"].Final))
}

func TestDecode_RefusesAFinalReplyThatIsNone(t *testing.T) {
	t.Parallel()
	_, err := decode(t.Context(), map[string]string{keySchema: "1", entryKey("a"): `{"key":"a","final":null}`}, nil)
	require.Equal(t, fault.JournalInvalid, fault.From(err).Reason)
	require.ErrorContains(t, err, "its final reply is null")
}
