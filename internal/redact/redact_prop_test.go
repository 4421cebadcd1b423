package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// reference redacts a whole text the slow and obvious way.
func reference(text string, needles []string) string {
	hidden := make([]bool, len(text))
	for _, needle := range needles {
		if len(needle) < redact.MinLength {
			continue
		}
		for i := 0; i+len(needle) <= len(text); i++ {
			if text[i:i+len(needle)] == needle {
				for j := range len(needle) {
					hidden[i+j] = true
				}
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			out.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			out.WriteString(redact.Marker)
		}
	}
	return out.String()
}

func TestWriter_EqualsTheObviousWayHoweverItIsSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// Few letters, so that needles overlap, contain and repeat one another.
		text := rapid.StringMatching(`[ab]{0,60}`).Draw(rt, "text")
		needles := rapid.SliceOfN(rapid.StringMatching(`[ab]{4,12}`), 0, 5).Draw(rt, "needles")
		r := redact.New(needles...)
		var out strings.Builder
		w := redact.NewWriter(&out, r)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "write")
			written, err := w.Write([]byte(rest[:n]))
			require.NoError(rt, err)
			require.Equal(rt, n, written)
			rest = rest[n:]
		}
		require.NoError(rt, w.Flush())
		require.Equal(rt, reference(text, needles), out.String())
		require.Equal(rt, reference(text, needles), r.String(text))
	})
}

// Whatever stands around a value, no encoding of the whole shows it.
func TestString_HidesValuesInsideEncodings(t *testing.T) {
	t.Parallel()
	encodings := map[string]func(string) (encoded string, decode func(string) string){
		"JSON": func(s string) (string, func(string) string) {
			raw, err := json.Marshal(s)
			require.NoError(t, err)
			return string(raw), func(s string) (out string) {
				_ = json.Unmarshal([]byte(s), &out) // what no longer decodes shows nothing
				return out
			}
		},
		"URL": func(s string) (string, func(string) string) {
			return url.QueryEscape(s), func(s string) string {
				out, _ := url.QueryUnescape(s)
				return out
			}
		},
	}
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringMatching(`[ -~]{8,30}`).Draw(rt, "value")
		before, after := rapid.StringN(0, 8, -1).Draw(rt, "before"), rapid.StringN(0, 8, -1).Draw(rt, "after")
		r := redact.New(value)
		for name, encode := range encodings {
			text, decode := encode(before + value + after)
			require.NotContains(rt, decode(r.String(text)), value, name)
		}
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
			text := enc.EncodeToString([]byte(before + value + after))
			hidden := r.String(text)
			require.Contains(rt, hidden, redact.Marker)
			// At most the digits at its two ends are left of the value.
			require.LessOrEqual(rt, len(strings.ReplaceAll(hidden, redact.Marker, "")), len(text)-(len(value)*8/6-3))
		}
	})
}

// Records passes every piece on at once, and whole.
func TestRecords_AreCompleteByThemselves(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := redact.New("abcdef").Records(&out)
	for _, piece := range []string{"x abc", "def abcdef\n"} {
		n, err := w.Write([]byte(piece))
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
	}
	require.Equal(t, "x abcdef [REDACTED]\n", out.String())
	_, err := redact.New().Records(failing{}).Write([]byte("x"))
	require.ErrorIs(t, err, errBroken)
}

func FuzzWriter_NeverEmitsANeedle(f *testing.F) {
	f.Add([]byte("xx s3cret-value yy"), "s3cret-value", "cret-v", 3)
	f.Add([]byte("abaabaabaaba"), "abaaba", "baabaa", 1)
	f.Add([]byte("line one\r\nline two"), "line one\nline two", "\x00\xff\x00\xff\x00\xff", 2)
	marker := regexp.MustCompile(`[\[\]A-Z]`)
	f.Fuzz(func(t *testing.T, text []byte, a, b string, step int) {
		bounded.Here(t)
		const most = 512 // longer ones show nothing new, slowly
		if len(text) > most || len(a) > most || len(b) > most {
			return
		}
		needles := []string{a, b}
		r := redact.New(needles...)
		var out bytes.Buffer
		w := redact.NewWriter(&out, r)
		step = max(1, min(step, 64))
		for rest := text; len(rest) > 0; {
			n := min(step, len(rest))
			_, err := w.Write(rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.NoError(t, w.Flush())
		for _, needle := range needles {
			if len(needle) < redact.MinLength || marker.MatchString(needle) {
				continue // too short, or may come about by way of the marker itself
			}
			require.NotContains(t, out.String(), needle)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	line := []byte("2026-01-01T00:00:00Z building packages/app/src/index.ts with 42 modules, no secrets here\n")
	w := redact.NewWriter(discard{}, redact.New("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", strings.Repeat("pem-line\n", 50)))
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		_, _ = w.Write(line)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
