package journal

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// schemaVersion is the version of the document's form. A document of another
// version is neither read nor overwritten.
const schemaVersion = "1"

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

// encode returns d as a map of texts, compacted to at most limit bytes.
func (d *document) encode(limit int) (map[string]string, error) {
	head, err := json.Marshal(d.Writer)
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	data := map[string]string{keySchema: schemaVersion, keyWriter: string(head)}
	total := len(head) + 64
	entries := d.sorted()
	for _, e := range entries {
		total += put(data, e)
	}
	for _, e := range entries {
		if total <= limit {
			break
		}
		total -= len(data[entryPrefix+hash(e.Key, 32)])
		total += put(data, e.compacted(d.newestEpoch()))
	}
	if total > limit {
		return nil, fault.Newf(fault.System, fault.Internal, "write the run's journal",
			"Submit the run anew instead of retrying it", "it has %d bytes: at most %d fit", total, limit)
	}
	return data, nil
}

func put(data map[string]string, e *Entry) int {
	text, err := json.Marshal(e)
	if err != nil { // RawMessages are checked when they come in
		panic(err)
	}
	key := entryPrefix + hash(e.Key, 32)
	data[key] = string(text)
	return len(text) + len(key)
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
func decode(data map[string]string) (*document, error) {
	d := newDocument()
	if v := data[keySchema]; v != schemaVersion {
		return nil, corrupt("its schema is %q: this version of aphex writes %q", v, schemaVersion)
	}
	for key, text := range data {
		switch {
		case key == keySchema:
		case key == keyWriter:
			if err := json.Unmarshal([]byte(text), &d.Writer); err != nil {
				return nil, corrupt("%s: %w", key, err)
			}
		case strings.HasPrefix(key, entryPrefix):
			var e Entry
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				return nil, corrupt("%s: %w", key, err)
			}
			if key != entryPrefix+hash(e.Key, 32) {
				return nil, corrupt("%s holds the entry of another execution, %s", key, e.Key)
			}
			d.Entries[e.Key] = &e
		default:
			return nil, corrupt("%s is not a key of the journal", key)
		}
	}
	return d, nil
}

func corrupt(format string, args ...any) error {
	return fault.Newf(fault.System, fault.JournalInvalid, "read the run's journal",
		"Delete the journal and retry the run; effects already made are found again where they were made", format, args...)
}
