package redact

// MinFound is the shortest value in bytes that a [Finder] looks for. Shorter
// ones, such as names of users, stand in files that have nothing to do with
// the secret.
const MinFound = 16

// Finder is a writer that looks for values in what is written to it, as they
// are and in base64. The zero value finds nothing.
type Finder struct {
	matcher *matcher
	state   int32
	found   bool
}

// NewFinder returns a Finder of those values that have at least [MinFound]
// bytes.
func NewFinder(values ...string) *Finder {
	var needles []string
	for _, value := range values {
		if len(value) >= MinFound {
			needles = append(append(needles, value), inBase64(value)...)
		}
	}
	if len(needles) == 0 {
		return &Finder{}
	}
	return &Finder{matcher: newMatcher(needles)}
}

// Write implements io.Writer and never fails.
func (f *Finder) Write(p []byte) (int, error) {
	if f.matcher == nil || f.found {
		return len(p), nil
	}
	for _, b := range p {
		f.state = f.matcher.step(f.state, b)
		if f.matcher.nodes[f.state].match > 0 {
			f.found = true
			break
		}
	}
	return len(p), nil
}

// Found reports whether a value was in what was written since the last call,
// and begins anew.
func (f *Finder) Found() bool {
	found := f.found
	f.state, f.found = 0, false
	return found
}
