package process

// ring keeps the last limit bytes written to it.
type ring struct {
	limit int
	buf   []byte
	next  int
}

// Write never fails.
func (r *ring) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) >= r.limit {
		r.buf = append(r.buf[:0], p[len(p)-r.limit:]...)
		r.next = 0
		return n, nil
	}
	if room := r.limit - len(r.buf); room > 0 {
		k := min(room, len(p))
		r.buf = append(r.buf, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(r.buf[r.next:], p)
		r.next = (r.next + k) % r.limit
		p = p[k:]
	}
	return n, nil
}

// bytes returns a copy of what is kept, oldest first.
func (r *ring) bytes() []byte {
	if len(r.buf) == 0 {
		return nil
	}
	out := make([]byte, 0, len(r.buf))
	out = append(out, r.buf[r.next:]...)
	return append(out, r.buf[:r.next]...)
}
