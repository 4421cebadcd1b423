package redact

import (
	"cmp"
	"io"
	"slices"
	"sync"
)

// Writer passes a stream on with every value its [Redactor] knows replaced by
// [Marker]. It holds back only what may be the beginning of such a value, at
// most the longest one. Values that overlap or touch become one marker.
//
// Safe for concurrent use; each Write reaches the underlying writer as at most
// one Write.
type Writer struct {
	mu         sync.Mutex
	dst        io.Writer
	redactor   *Redactor
	matcher    *matcher
	generation int

	held   []byte // bytes read but not passed on
	state  int32  // of the matcher, after the last held byte
	hidden []span // parts of held to replace, in order, apart
	open   bool   // what comes directly before held was replaced
	out    []byte
}

// span is a half-open part of the held bytes.
type span struct{ from, to int }

// NewWriter returns a Writer on top of dst, which stays the caller's to close
// after [Writer.Flush].
func NewWriter(dst io.Writer, r *Redactor) *Writer {
	return &Writer{dst: dst, redactor: r}
}

// Write takes p, passing on what cannot be part of a known value. It returns
// len(p) unless the underlying writer fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	if w.matcher == nil {
		if _, err := w.dst.Write(p); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	w.scan(p)
	if err := w.emit(len(w.held) - w.matcher.nodes[w.state].depth); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush passes on everything held back: the beginning of a value that did
// not go on. Call it at the end of the stream, or where the stream pauses.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	if w.matcher == nil {
		return nil
	}
	w.state = 0
	err := w.emit(len(w.held))
	w.open = false
	return err
}

// refresh takes over values added since the last call and looks for them in
// what is held back.
func (w *Writer) refresh() {
	matcher, generation := w.redactor.current()
	if generation == w.generation {
		return
	}
	w.matcher, w.generation = matcher, generation
	held, hidden := w.held, w.hidden
	w.held, w.hidden, w.state = nil, nil, 0
	w.scan(held)
	found := slices.Concat(hidden, w.hidden)
	slices.SortFunc(found, func(a, b span) int { return cmp.Compare(a.to, b.to) })
	w.hidden = nil
	for _, s := range found {
		w.hide(s)
	}
}

func (w *Writer) scan(p []byte) {
	for i := 0; i < len(p); i++ {
		if w.state == 0 {
			from := i
			for i < len(p) && w.matcher.first[p[i]] == 0 {
				i++
			}
			w.held = append(w.held, p[from:i]...)
			if i == len(p) {
				return
			}
		}
		w.held = append(w.held, p[i])
		w.state = w.matcher.step(w.state, p[i])
		if n := w.matcher.nodes[w.state].match; n > 0 {
			w.hide(span{len(w.held) - n, len(w.held)})
		}
	}
}

// hide adds a part that ends after all others, joining those it meets.
func (w *Writer) hide(s span) {
	for len(w.hidden) > 0 {
		last := w.hidden[len(w.hidden)-1]
		if last.to < s.from {
			break
		}
		s.from = min(s.from, last.from)
		w.hidden = w.hidden[:len(w.hidden)-1]
	}
	w.hidden = append(w.hidden, s)
}

// emit passes on the first n held bytes.
func (w *Writer) emit(n int) error {
	if n == 0 {
		return nil
	}
	w.out = w.out[:0]
	at := 0
	rest := w.hidden[:0]
	for _, s := range w.hidden {
		if s.from >= n {
			rest = append(rest, span{s.from - n, s.to - n})
			continue
		}
		if s.from > at {
			w.out = append(w.out, w.held[at:s.from]...)
			w.open = false
		}
		if !w.open {
			w.out = append(w.out, Marker...)
			w.open = true
		}
		at = min(s.to, n)
		if s.to > n {
			rest = append(rest, span{0, s.to - n})
		}
	}
	if at < n {
		w.out = append(w.out, w.held[at:n]...)
		w.open = false
	}
	w.hidden = rest
	w.held = append(w.held[:0], w.held[n:]...)
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.dst.Write(w.out)
	return err
}
