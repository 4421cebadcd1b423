package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// Overflow takes the entries that do not fit into a ConfigMap.
type Overflow interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// maxOverflow bounds one entry that is read back: all effects and a reply are
// well below it.
const maxOverflow = 8 << 20

// reference is where an entry is that is not in the document itself. Objects
// are named by their content, so one that is referred to never changes.
type reference struct {
	Object string `json:"object"`
	SHA256 string `json:"sha256"`
	Size   int    `json:"size"`
}

// stub is an entry as it is in the document: whole, or without effects and
// reply and with the reference to the whole.
type stub struct {
	Entry
	Ref *reference `json:"ref,omitempty"`
}

// shelf keeps the entries of one run that were moved out.
type shelf struct {
	overflow Overflow
	uid      string
	// kept are the objects this process has written or read.
	kept map[string]bool
}

func newShelf(overflow Overflow, uid string) *shelf {
	if overflow == nil {
		return nil
	}
	return &shelf{overflow: overflow, uid: uid, kept: map[string]bool{}}
}

// put stores the whole of e, which is text, and returns what stays.
func (s *shelf) put(ctx context.Context, e *Entry, text []byte) (*stub, error) {
	sum := sha256.Sum256(text)
	ref := &reference{SHA256: hex.EncodeToString(sum[:]), Size: len(text)}
	ref.Object = fmt.Sprintf("runs/%s/journal/%s-%s.json", s.uid, hash(e.Key, 16), ref.SHA256[:16])
	if !s.kept[ref.Object] {
		if _, err := s.overflow.Put(ctx, ref.Object, bytes.NewReader(text), store.PutOptions{ContentType: "application/json"}); err != nil {
			return nil, fmt.Errorf("keep an entry of the run's journal in the bucket: %w", err)
		}
		s.kept[ref.Object] = true
	}
	rest := e.clone()
	rest.Effects, rest.Final = nil, nil
	return &stub{Entry: rest, Ref: ref}, nil
}

// get returns the whole of an entry.
func (s *shelf) get(ctx context.Context, st *stub) (*Entry, error) {
	if s == nil {
		return nil, corrupt("the entry of %s is in the bucket as %s, which cannot be read from here", st.Key, st.Ref.Object)
	}
	body, _, err := s.overflow.Get(ctx, st.Ref.Object)
	if err != nil {
		return nil, fmt.Errorf("read an entry of the run's journal from the bucket: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(body, maxOverflow))
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	if err != nil { // a damaged object is told apart by the store
		return nil, fmt.Errorf("read an entry of the run's journal from the bucket: %w", err)
	}
	var e Entry
	sum := sha256.Sum256(text)
	if hex.EncodeToString(sum[:]) != st.Ref.SHA256 || json.Unmarshal(text, &e) != nil || e.Key != st.Key {
		return nil, corrupt("object %s is not the entry of %s that was written there", st.Ref.Object, st.Key)
	}
	s.kept[st.Ref.Object] = true
	return &e, nil
}
