package redact

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// MinLength is the shortest value in bytes that is redacted. Shorter ones
// would turn ordinary words into markers and give themselves away by that.
const MinLength = 6

// Redactor knows the values to hide. Several writers may share one, and
// values may be added while they write. The zero value knows none. Safe for
// concurrent use.
type Redactor struct {
	mu         sync.RWMutex
	needles    map[string]struct{}
	matcher    *matcher
	generation int
}

// New returns a Redactor that hides values.
func New(values ...string) *Redactor {
	r := &Redactor{}
	r.Add(values...)
	return r
}

// Add hides values from now on, in the forms they usually appear in: as they
// are, each line by itself (logs prefix lines and change line ends), and
// encoded for JSON, URLs and base64, there also within something longer. Values and lines shorter than
// [MinLength] are passed over.
func (r *Redactor) Add(values ...string) {
	var forms []string
	for _, value := range values {
		forms = append(forms, formsOf(value)...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.needles == nil {
		r.needles = map[string]struct{}{}
	}
	before := len(r.needles)
	for _, form := range forms {
		if len(form) >= MinLength {
			r.needles[form] = struct{}{}
		}
	}
	if len(r.needles) == before {
		return
	}
	all := make([]string, 0, len(r.needles))
	for needle := range r.needles {
		all = append(all, needle)
	}
	slices.Sort(all)
	r.matcher = newMatcher(all)
	r.generation++
}

// AddSecret hides the secrets' values, as [Redactor.Add] does.
func (r *Redactor) AddSecret(secrets ...Secret) {
	for _, secret := range secrets {
		r.Add(secret.Reveal())
	}
}

func formsOf(value string) []string {
	if len(value) < MinLength {
		return nil
	}
	forms := []string{value}
	if strings.ContainsAny(value, "\r\n") {
		for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\r' || r == '\n' }) {
			forms = append(forms, line, strings.TrimSpace(line))
		}
	}
	for _, escapeHTML := range []bool{true, false} {
		forms = append(forms, quoted(value, escapeHTML))
	}
	return append(append(forms, url.QueryEscape(value), url.PathEscape(value)), inBase64(value)...)
}

// quoted is value as it stands between the quotes of a JSON string.
func quoted(value string, escapeHTML bool) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	if enc.Encode(value) != nil { // strings always encode
		return value
	}
	text := strings.TrimSuffix(out.String(), "\n")
	return text[1 : len(text)-1]
}

// inBase64 returns what is common to all base64 texts that contain value, for
// each of the three places where it may begin in a group of three bytes, as in
// the user:password of an Authorization header; and value's own encoding.
func inBase64(value string) []string {
	var forms []string
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		forms = append(forms, enc.EncodeToString([]byte(value)))
		for before := range 3 {
			text := enc.EncodeToString(append(make([]byte, before), value...))
			// Digits that depend on what stands before, and behind, are left out.
			from, to := (before*8+5)/6, (before+len(value))*8/6
			forms = append(forms, text[from:to])
		}
	}
	return forms
}

// String returns text with every known value replaced by [Marker].
func (r *Redactor) String(text string) string {
	var out strings.Builder
	w := NewWriter(&out, r)
	_, _ = w.Write([]byte(text)) // a strings.Builder never fails
	_ = w.Flush()
	return out.String()
}

// Records returns a writer on top of w for what comes in complete pieces, as
// the records of a log do: every Write is redacted by itself and passed on
// whole. Safe for concurrent use if w is.
func (r *Redactor) Records(w io.Writer) io.Writer { return records{w, r} }

type records struct {
	w io.Writer
	r *Redactor
}

// Write implements io.Writer.
func (rec records) Write(p []byte) (int, error) {
	if _, err := io.WriteString(rec.w, rec.r.String(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r *Redactor) current() (*matcher, int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.matcher, r.generation
}
