package junit

import (
	"bufio"
	"fmt"
	"io"
)

// maxTag bounds a tag in bytes. Messages of failed tests stand there, which may
// hold whole documents that differ; but each attribute takes ten times the
// memory that it has bytes, and all of a tag are kept at once.
const maxTag = 1 << 20

// What the decoder reads at the moment.
type part int

const (
	unknown part = iota
	// opening is after "<".
	opening
	tag
	// free is text, a comment or a section of text: kept by the decoder as the
	// bytes that it is.
	free
)

// source is what the decoder reads from, byte by byte. It refuses tags that are
// too long.
type source struct {
	in   *bufio.Reader
	part part
	lead byte // the first byte after "<"
	size int
}

// begin is called before each token. The decoder has the "<" of a token that
// follows text already.
func (s *source) begin(afterText bool) {
	s.part, s.lead, s.size = unknown, 0, 0
	if afterText {
		s.part = opening
	}
}

// ReadByte is what the decoder uses of a reader that has it.
func (s *source) ReadByte() (byte, error) {
	b, err := s.in.ReadByte()
	if err != nil {
		return b, err
	}
	s.size++
	switch s.part {
	case unknown:
		s.part = free
		if b == '<' {
			s.part = opening
		}
	case opening:
		s.part, s.lead = tag, b
		if b == '!' || b == '?' {
			s.part = free
		}
	case tag:
		if s.size > maxTag {
			return 0, fmt.Errorf("a tag has more than %d bytes", maxTag)
		}
	case free:
	}
	return b, nil
}

// section reports whether text was a section, which the decoder reads with its
// end and nothing more.
func (s *source) section() bool { return s.lead == '!' }

// Read makes a source an io.Reader.
func (s *source) Read(p []byte) (int, error) { return s.in.Read(p) }

var _ io.ByteReader = (*source)(nil)
