package stagelog

import (
	"bytes"
	"sync"
)

// maxLine is the longest line that is kept whole.
const maxLine = 64 << 10

// Lines takes what is written to it apart into lines, without their line
// breaks; what follows the last break waits for its end. It is safe for
// concurrent use.
type Lines struct {
	// Line receives each line. It must not keep the bytes.
	Line func(line []byte)

	mu      sync.Mutex
	partial []byte
}

// Write never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		l.Line(bytes.TrimSuffix(append(l.partial, p[:i]...), []byte("\r")))
		l.partial, p = l.partial[:0], p[i+1:]
	}
	l.partial = append(l.partial, p...)
	for len(l.partial) >= maxLine {
		l.Line(l.partial[:maxLine])
		l.partial = append([]byte(nil), l.partial[maxLine:]...)
	}
	return n, nil
}

// Flush passes on what has no line break, then last.
func (l *Lines) Flush(last string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.Line(l.partial)
		l.partial = nil
	}
	if last != "" {
		l.Line([]byte(last))
	}
}
