package redact

import (
	"encoding/base64"
	"encoding/json"
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
// encoded for JSON, URLs and base64. Values and lines shorter than
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
	if quoted, err := json.Marshal(value); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	return append(forms,
		url.QueryEscape(value), url.PathEscape(value),
		base64.RawStdEncoding.EncodeToString([]byte(value)),
		base64.RawURLEncoding.EncodeToString([]byte(value)),
	)
}

// String returns text with every known value replaced by [Marker].
func (r *Redactor) String(text string) string {
	var out strings.Builder
	w := NewWriter(&out, r)
	_, _ = w.Write([]byte(text)) // a strings.Builder never fails
	_ = w.Flush()
	return out.String()
}

func (r *Redactor) current() (*matcher, int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.matcher, r.generation
}
