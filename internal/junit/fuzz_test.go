package junit_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/junit"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// FuzzParse: whatever the tests of a pipeline leave as their report, it is
// well-formed or refused, each test case in it counts once, and what is kept of
// it is fit to be shown and holds no secret.
func FuzzParse(f *testing.F) {
	reports, err := filepath.Glob("testdata/*.xml")
	require.NoError(f, err)
	require.NotEmpty(f, reports)
	for _, name := range reports {
		text, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte("<testsuite" + strings.Repeat(` a="<>"`, 500) + "><testcase/>" + strings.Repeat("<testsuite>", 120)))
	const secret = "s3cr3t"
	hide := func(text string) string { return strings.ReplaceAll(text, secret, "***") }
	f.Fuzz(func(t *testing.T, data []byte) {
		bounded.Here(t)
		got, err := junit.Parse(strings.NewReader(string(data)), hide)
		require.Equal(t, min(got.Totals.Failed, junit.MaxFailed), len(got.Failed))
		require.LessOrEqual(t, len(got.Suites), junit.MaxSuites)
		if len(got.Suites) < junit.MaxSuites {
			require.Equal(t, got.Totals, sum(got.Suites))
		}
		for _, s := range got.Suites {
			require.Positive(t, s.Total())
			checkText(t, s.Name, junit.MaxName)
		}
		for _, c := range got.Failed {
			checkText(t, c.Name, junit.MaxName)
			checkText(t, c.Class, junit.MaxName)
			checkText(t, c.Message, junit.MaxMessage)
			require.NotContains(t, c.Name+"\n"+c.Class+"\n"+c.Message, secret)
		}
		if err == nil {
			checkWhole(t, data, got)
		}
	})
}

func checkText(t *testing.T, text string, limit int) {
	t.Helper()
	require.LessOrEqual(t, len(text), limit)
	require.True(t, utf8.ValidString(text))
	require.Equal(t, strings.TrimSpace(text), text)
	require.NotContains(t, text, "  ")
	require.Negative(t, strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }), "%q", text)
}

// checkWhole compares a report that was accepted with what a decoder of XML
// that knows nothing of reports finds.
func checkWhole(t *testing.T, data []byte, got junit.Report) {
	t.Helper()
	in := xml.NewDecoder(strings.NewReader(string(data)))
	inCase, roots := 0, 0
	want, depth := 0, 0
	for {
		token, err := in.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		switch tag := token.(type) {
		case xml.StartElement:
			if depth++; depth == 1 {
				roots++
			}
			switch name := tag.Name.Local; {
			case inCase > 0:
			case name == "testcase", name == "failure", name == "error":
				want, inCase = want+1, depth
			}
		case xml.EndElement:
			if depth == inCase {
				inCase = 0
			}
			depth--
		}
	}
	require.Zero(t, depth)
	require.Positive(t, roots)
	require.Equal(t, want, got.Total())
}
