package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/redact"
)

func TestSecret_NeverPrints(t *testing.T) {
	t.Parallel()
	secret := redact.NewSecret("hunter2-hunter2")
	holder := struct {
		S redact.Secret
		P *redact.Secret
	}{secret, &secret}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%08.3f"} {
		fmt.Fprintf(&out, verb, secret)
		fmt.Fprintf(&out, verb, holder)
	}
	fmt.Fprintln(&out, errors.New(fmt.Sprint(secret)), []redact.Secret{secret})
	for _, v := range []any{secret, holder, map[redact.Secret]redact.Secret{secret: secret}} {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		out.Write(data)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", secret, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", secret)
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "hunter2"))
	require.Equal(t, "hunter2-hunter2", secret.Reveal())
	require.False(t, secret.IsEmpty())
}

func TestWriter_ReplacesKnownValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		needles []string
		in, out string
	}{
		{"none known", nil, "all of it", "all of it"},
		{"alone", []string{"s3cret-value"}, "a s3cret-value b\n", "a [REDACTED] b\n"},
		{"at both ends", []string{"s3cret"}, "s3cret x s3cret", "[REDACTED] x [REDACTED]"},
		{"beginning only", []string{"s3cret-value"}, "s3cret-valu", "s3cret-valu"},
		{"false start", []string{"aaaaab"}, "aaaaaaab", "aa[REDACTED]"},
		{"overlapping", []string{"abcdefgh", "fghijklm"}, "xabcdefghijklmx", "x[REDACTED]x"},
		{"one in another", []string{"bcdefg", "abcdefgh"}, "abcdefgh bcdefg abcdefg", "[REDACTED] [REDACTED] a[REDACTED]"},
		{"touching", []string{"abcdef"}, "abcdefabcdef", "[REDACTED]"},
		{"itself overlapping", []string{"abaaba"}, "-abaabaaba-", "-[REDACTED]-"},
		{"too short", []string{"short"}, "short", "short"},
		{"line with prefix", []string{"first-line\nsecond-line"}, "| first-line\r\n| second-line\r\n", "| [REDACTED]\r\n| [REDACTED]\r\n"},
		{"whole with a short line", []string{"first-line\nab\nlast-line"}, "first-line\nab\nlast-line", "[REDACTED]"},
		{"json", []string{"quo\"ted\nvalue"}, `{"a":"quo\"ted\nvalue"}`, `{"a":"[REDACTED]"}`},
		{"url", []string{"p@ss word/x"}, "https://u:" + url.QueryEscape("p@ss word/x") + "@h/", "https://u:[REDACTED]@h/"},
		{"base64", []string{"s3cret-value"}, base64.StdEncoding.EncodeToString([]byte("s3cret-value")), "[REDACTED]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := redact.New(tt.needles...)
			require.Equal(t, tt.out, r.String(tt.in), "whole")
			var out strings.Builder
			w := redact.NewWriter(&out, r)
			for i := range len(tt.in) {
				_, err := w.Write([]byte{tt.in[i]})
				require.NoError(t, err)
			}
			require.NoError(t, w.Flush())
			require.Equal(t, tt.out, out.String(), "byte by byte")
		})
	}
}

func TestWriter_TakesValuesAddedMidStream(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := redact.New("abcdef-first")
	w := redact.NewWriter(&out, r)
	_, err := w.Write([]byte("later-value abcdef"))
	require.NoError(t, err)
	require.Equal(t, "later-value ", out.String(), "the possible beginning is held back")
	r.Add("abcdef-later")
	r.AddSecret(redact.NewSecret("later-value"))
	_, err = w.Write([]byte("-later later-value abcdef-first"))
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	require.Equal(t, "later-value [REDACTED] [REDACTED] [REDACTED]", out.String())
}

func TestWriter_KeepsHidingAValueHalfPassedOnWhenAnotherIsAdded(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := redact.New("abcdefgh", "ghijkl")
	w := redact.NewWriter(&out, r)
	_, err := w.Write([]byte("abcdefghi"))
	require.NoError(t, err)
	require.Equal(t, redact.Marker, out.String())
	r.Add("unrelated")
	_, err = w.Write([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, redact.Marker+"ix", out.String())
}

func TestWriter_HoldsBackOnlyPossibleBeginnings(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := redact.NewWriter(&out, redact.New("s3cret-value"))
	_, err := w.Write([]byte("a line\n"))
	require.NoError(t, err)
	require.Equal(t, "a line\n", out.String())
}

func TestWriter_ReportsTheUnderlyingError(t *testing.T) {
	t.Parallel()
	for _, r := range []*redact.Redactor{redact.New(), redact.New("s3cret-value")} {
		_, err := redact.NewWriter(failing{}, r).Write([]byte("x"))
		require.ErrorIs(t, err, errBroken)
	}
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errBroken }
