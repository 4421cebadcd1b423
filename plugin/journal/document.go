package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// The versions of the document's form. A document is written in the oldest one
// that can say it, so that a run survives going back to the version of aphex
// before. One of a newer version is neither read nor overwritten.
const (
	// schemaWhole has every entry in the document.
	schemaWhole = 1
	// schemaOverflow may have references to entries in the bucket.
	schemaOverflow = 2
)

const (
	keySchema   = "schema"
	keyWriter   = "writer"
	entryPrefix = "execution."
)

// writer says who holds a book.
type writer struct {
	// Generation counts the claims; the highest one holds the book.
	Generation int64     `json:"generation"`
	PodUID     string    `json:"podUID"`
	Since      time.Time `json:"since"`
}

// document is a book's content. In a ConfigMap each entry is a key of its own,
// named by the hash of the execution's key.
type document struct {
	Writer  writer
	Entries map[string]*Entry
}

func newDocument() *document { return &document{Entries: map[string]*Entry{}} }

// clone returns a copy that can be changed without touching d.
func (d *document) clone() *document {
	c := &document{Writer: d.Writer, Entries: make(map[string]*Entry, len(d.Entries))}
	for key, e := range d.Entries {
		c.Entries[key] = new(e.clone())
	}
	return c
}

func (d *document) sorted() []*Entry {
	entries := slices.Collect(maps.Values(d.Entries))
	slices.SortFunc(entries, func(a, b *Entry) int {
		if c := a.StartedAt.Compare(b.StartedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return entries
}

// encode returns d as a map of texts of at most limit bytes. What does not fit
// is put on the shelf or, where there is none, dropped if it is of an earlier
// try.
func (d *document) encode(ctx context.Context, limit int, s *shelf) (map[string]string, error) {
	head, err := json.Marshal(d.Writer)
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	data := map[string]string{keySchema: strconv.Itoa(schemaWhole), keyWriter: string(head)}
	total := len(head) + 64
	entries := d.sorted()
	for _, e := range entries {
		total += put(data, e.Key, e)
	}
	newest := d.newestEpoch()
	slices.SortStableFunc(entries, func(a, b *Entry) int { return a.room(newest) - b.room(newest) })
	for _, e := range entries {
		if total <= limit {
			break
		}
		text := data[entryKey(e.Key)]
		var smaller any = e.compacted(newest)
		if s != nil {
			st, err := s.put(ctx, e, []byte(text))
			if err != nil {
				return nil, err
			}
			smaller, data[keySchema] = st, strconv.Itoa(schemaOverflow)
		}
		total += put(data, e.Key, smaller) - len(text) - len(entryKey(e.Key))
	}
	if total > limit {
		return nil, fault.Newf(fault.System, fault.Internal, "write the run's journal",
			"Submit the run anew instead of retrying it", "it has %d bytes: at most %d fit", total, limit)
	}
	return data, nil
}

func entryKey(key string) string { return entryPrefix + hash(key, 32) }

// put encodes an entry such that what is in it as JSON stays as it is: a reply
// is given again as it was sent.
func put(data map[string]string, key string, e any) int {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil { // RawMessages are checked when they come in
		panic(err)
	}
	text := strings.TrimSuffix(out.String(), "\n")
	data[entryKey(key)] = text
	return len(text) + len(entryKey(key))
}

// room orders entries by who makes room first: those nobody will ask for, then
// those that will not change any more, then the others; of each the oldest.
func (e *Entry) room(newest string) int {
	switch {
	case e.Ended() && e.Epoch != newest:
		return 0
	case e.Ended():
		return 1
	}
	return 2
}

// compacted returns what must be kept of an entry of an earlier try when space
// runs out: that it was, and how it ended. Nobody asks for its reply any more.
func (e *Entry) compacted(newest string) *Entry {
	if e.Epoch == newest || !e.Ended() {
		return e
	}
	c := e.clone()
	c.Effects, c.Final = nil, json.RawMessage(`{}`)
	return &c
}

func (d *document) newestEpoch() string {
	newest, at := "", time.Time{}
	for _, e := range d.Entries {
		if e.StartedAt.After(at) || newest == "" {
			newest, at = e.Epoch, e.StartedAt
		}
	}
	return newest
}

// decode is the inverse of encode. Keys it does not know are an error: they
// would be lost with the next write.
func decode(ctx context.Context, data map[string]string, s *shelf) (*document, error) {
	d := newDocument()
	if err := readable(data[keySchema]); err != nil {
		return nil, err
	}
	for key, text := range data {
		switch {
		case key == keySchema:
		case key == keyWriter:
			if err := json.Unmarshal([]byte(text), &d.Writer); err != nil {
				return nil, corrupt("%s: %w", key, err)
			}
		case strings.HasPrefix(key, entryPrefix):
			e, err := decodeEntry(ctx, key, text, s)
			if err != nil {
				return nil, err
			}
			d.Entries[e.Key] = e
		default:
			return nil, corrupt("%s is not a key of the journal", key)
		}
	}
	return d, nil
}

func decodeEntry(ctx context.Context, key, text string, s *shelf) (*Entry, error) {
	var st stub
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return nil, corrupt("%s: %w", key, err)
	}
	if key != entryKey(st.Key) {
		return nil, corrupt("%s holds the entry of another execution, %s", key, st.Key)
	}
	e := &st.Entry
	if st.Ref != nil {
		var err error
		if e, err = s.get(ctx, &st); err != nil {
			return nil, err
		}
	}
	if string(e.Final) == "null" {
		return nil, corrupt("%s: its final reply is null", key)
	}
	return e, nil
}

// readable checks the version of a document.
func readable(schema string) error {
	switch n, err := strconv.Atoi(schema); {
	case err != nil, n < schemaWhole:
		return corrupt("its schema is %q: it must be a number from %d to %d", schema, schemaWhole, schemaOverflow)
	case n > schemaOverflow:
		return fault.Newf(fault.System, fault.JournalInvalid, "read the run's journal",
			"Use the version of aphex that began this try of the run, or a newer one",
			"a newer version of aphex has written it: its schema is %d, this version reads up to %d", n, schemaOverflow)
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return fault.Newf(fault.System, fault.JournalInvalid, "read the run's journal",
		"Delete the journal and retry the run; effects already made are found again where they were made", format, args...)
}
