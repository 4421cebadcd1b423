package junit_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/junit"
)

// as is a hide that hides nothing.
func as(text string) string { return text }

func parse(text string) (junit.Report, error) { return junit.Parse(strings.NewReader(text), as) }

func TestParse_ReportsOfTools(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]junit.Report{
		"pytest.xml": {
			Totals: junit.Totals{Passed: 2, Failed: 2, Skipped: 2},
			Suites: []junit.Suite{{Name: "pytest", Totals: junit.Totals{Passed: 2, Failed: 2, Skipped: 2}}},
			Failed: []junit.Case{
				{Class: "tests.test_health", Name: "test_answers[GET /?a=1&b=2]", Message: "AssertionError: expected 200, got 503"},
				{Class: "tests.test_orders", Name: "test_database", Message: `failed on setup with "ConnectionError: no route"`},
			},
		},
		"jest-junit.xml": {
			Totals: junit.Totals{Passed: 1, Failed: 2, Skipped: 1},
			Suites: []junit.Suite{{Name: "orders", Totals: junit.Totals{Passed: 1, Failed: 1, Skipped: 1}}, {Name: "prices", Totals: junit.Totals{Failed: 1}}},
			Failed: []junit.Case{
				{Class: "orders removes a line", Name: "orders removes a line", Message: "Error: expect(received).toBe(expected) // Object.is equality"},
				{Class: "Test suite failed to run", Name: "test/prices.test.ts", Message: "Cannot find module '../lib/prices' from 'test/prices.test.ts'"},
			},
		},
		"go-junit-report.xml": {
			Totals: junit.Totals{Passed: 2, Failed: 2, Skipped: 1},
			Suites: []junit.Suite{
				{Name: "example.com/shop/orders", Totals: junit.Totals{Passed: 2, Failed: 1, Skipped: 1}},
				{Name: "example.com/shop/prices", Totals: junit.Totals{Failed: 1}},
			},
			Failed: []junit.Case{
				{Class: "example.com/shop/orders", Name: "TestRemove", Message: "orders_test.go:12: got 1 lines, want 0"},
				{Class: "example.com/shop/prices", Name: "[build failed]", Message: "Build error"},
			},
		},
		"surefire.xml": {
			Totals: junit.Totals{Passed: 2, Failed: 2, Skipped: 1},
			Suites: []junit.Suite{{Name: "com.acme.shop.OrderTest", Totals: junit.Totals{Passed: 2, Failed: 2, Skipped: 1}}},
			Failed: []junit.Case{
				{Class: "com.acme.shop.OrderTest", Name: "removes", Message: "expected: <0> but was: <1>"},
				{Class: "com.acme.shop.OrderTest", Name: "pays", Message: "java.lang.NullPointerException"},
			},
		},
		"mocha.xml": {
			Totals: junit.Totals{Passed: 1, Failed: 1, Skipped: 1},
			Suites: []junit.Suite{{Name: "Mocha Tests", Totals: junit.Totals{Passed: 1, Failed: 1, Skipped: 1}}},
			Failed: []junit.Case{{Class: "orders with lines", Name: "removes", Message: "expected 1 to equal 0"}},
		},
		"mocha-junit-reporter.xml": {
			Totals: junit.Totals{Passed: 1, Failed: 1},
			Suites: []junit.Suite{{Name: "orders", Totals: junit.Totals{Passed: 1, Failed: 1}}},
			Failed: []junit.Case{{Class: "removes", Name: "orders removes", Message: "expected 1 to equal 0"}},
		},
		"nested.xml": {
			Totals: junit.Totals{Passed: 2, Failed: 1, Skipped: 1},
			Suites: []junit.Suite{
				{Name: `Unit\OrderTest`, Totals: junit.Totals{Passed: 1, Skipped: 1}}, {Name: "all", Totals: junit.Totals{Passed: 1}}, {Name: "broken", Totals: junit.Totals{Failed: 1}},
			},
			Failed: []junit.Case{{Name: "broken", Message: "could not load the suite"}},
		},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("testdata", file))
			require.NoError(t, err)
			got, err := parse(string(text))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestCase_Title(t *testing.T) {
	t.Parallel()
	require.Equal(t, "com.acme.OrderTest adds", junit.Case{Class: "com.acme.OrderTest", Name: "adds"}.Title())
	require.Equal(t, "orders adds", junit.Case{Class: "orders adds", Name: "orders adds"}.Title())
	require.Equal(t, "adds", junit.Case{Name: "adds"}.Title())
}

func TestParse_SmallThings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		want junit.Totals
	}{
		"byte order mark":                  {"\uFEFF<?xml version=\"1.0\"?><testsuite><testcase/></testsuite>", junit.Totals{Passed: 1}},
		"two reports in one file":          {"<testsuite><testcase/></testsuite>\n<?xml version=\"1.0\"?>\n<testsuites><testsuite><testcase><error/></testcase></testsuite></testsuites>", junit.Totals{Passed: 1, Failed: 1}},
		"failed twice is one failure":      {"<testsuite><testcase><failure/><error/></testcase></testsuite>", junit.Totals{Failed: 1}},
		"skipped and failed is a failure":  {"<testsuite><testcase><failure/><skipped/></testcase></testsuite>", junit.Totals{Failed: 1}},
		"a failure within output":          {"<testsuite><testcase><system-out>x<failure/></system-out></testcase></testsuite>", junit.Totals{Passed: 1}},
		"figures of the suite are no case": {`<testsuite tests="9" failures="9"/>`, junit.Totals{}},
		"names with prefixes":              {`<j:testsuite xmlns:j="urn:x"><j:testcase><j:failure/></j:testcase></j:testsuite>`, junit.Totals{Failed: 1}},
		"a test case in another element":   {"<testsuites><group><testcase/></group></testsuites>", junit.Totals{Passed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parse(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.want, got.Totals)
		})
	}
}

func TestParse_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, problem string }{
		"nothing":              {"", "it holds no XML element"},
		"blanks":               {" \n\t", "it holds no XML element"},
		"text":                 {"ok 1 - adds\n", "it holds no XML element"},
		"another format":       {"<?xml version=\"1.0\"?>\n<coverage line-rate=\"1\"/>", "line 2: it begins with <coverage>; test reports begin with <testsuites> or <testsuite>"},
		"JSON":                 {`{"tests": 1}`, "it holds no XML element"},
		"ends of others":       {"<testsuite></testcase>", "line 1: </testcase> ends nothing that is open"},
		"one end too many":     {"<testsuite/></testsuite>", "line 1: </testsuite> ends nothing that is open"},
		"an entity of its own": {`<!DOCTYPE x [<!ENTITY e "eeee">]><testsuite><testcase name="&e;"/></testsuite>`, "invalid character entity &e;"},
		"another encoding":     {`<?xml version="1.0" encoding="UTF-16"?><testsuite/>`, `line 1: xml: opening charset "UTF-16": reports in UTF-8 are read alone`},
		"no UTF-8":             {"<testsuite name='\xff'/>", "invalid UTF-8"},
		"too deep":             {"<testsuite>" + strings.Repeat("<x>", 200), "elements are nested more than 100 deep"},
		"a tag without end":    {"<testsuite " + strings.Repeat(`a="" `, 1<<18), "a tag has more than 1048576 bytes"},
		"the same after text":  {"<testsuite>text<testcase " + strings.Repeat(`a="" `, 1<<18), "a tag has more than 1048576 bytes"},
		"and after a section":  {"<testsuite><![CDATA[x]]><testcase " + strings.Repeat(`a="" `, 1<<18), "a tag has more than 1048576 bytes"},
		"and after a comment":  {"<testsuite><!-- x --><testcase " + strings.Repeat(`a="" `, 1<<18), "a tag has more than 1048576 bytes"},
		"and as an end":        {"<testsuite></" + strings.Repeat("x", 1<<21) + ">", "a tag has more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tt.text)
			require.ErrorContains(t, err, tt.problem)
		})
	}
}

// What is long without being a tag is read, and dropped.
func TestParse_LongOutputIsPassedOver(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("output ", 1<<19) // 3.5 MiB
	for name, text := range map[string]string{
		"text": long, "section": "<![CDATA[" + long + "]]>", "text after a section": "<![CDATA[x]]>" + long, "comment": "<!--" + long + "-->",
		"section after text": "text<![CDATA[" + long + "]]>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parse("<testsuite><testcase><system-out>" + text + "</system-out></testcase><testcase><failure>" + text + "</failure></testcase></testsuite>")
			require.NoError(t, err)
			require.Equal(t, junit.Totals{Passed: 1, Failed: 1}, got.Totals)
			require.LessOrEqual(t, len(got.Failed[0].Message), junit.MaxMessage)
		})
	}
}

// A tool that is stopped leaves half a report.
func TestParse_WhatStandsBeforeABreakCounts(t *testing.T) {
	t.Parallel()
	const whole = `<testsuite name="s"><testcase name="a"/><testcase name="b"><failure message="no">because</failure></testcase><testcase name="c"/></testsuite>`
	for at := range len(whole) {
		got, err := parse(whole[:at])
		require.Error(t, err, whole[:at])
		require.LessOrEqual(t, got.Total(), 3)
		failure := strings.Index(whole, `>because`)
		require.Equal(t, at > failure, got.Totals.Failed == 1, "a failure counts as soon as its tag was read: %s", whole[:at])
		if at > failure {
			require.Equal(t, []junit.Case{{Name: "b", Message: "no"}}, got.Failed)
		}
	}
	got, err := parse(whole)
	require.NoError(t, err)
	require.Equal(t, junit.Totals{Passed: 2, Failed: 1}, got.Totals)

	_, err = parse(whole[:60])
	require.ErrorContains(t, err, "unexpected EOF")
	broken := errors.New("the worker went away")
	_, err = junit.Parse(failing{strings.NewReader(whole[:60]), broken}, as)
	require.ErrorIs(t, err, broken)
}

// failing ends with an error.
type failing struct {
	r   *strings.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	if n, err := f.r.Read(p); err == nil {
		return n, nil
	}
	return 0, f.err
}

func TestParse_TextsAreFitToBeShown(t *testing.T) {
	t.Parallel()
	got, err := parse("<testsuite><testcase name=\" a\tb&#xD;c\u202e\u0085d\" classname='" + strings.Repeat("ü", 300) + "'><failure>\n \n  first \t line\u200b \nsecond</failure></testcase></testsuite>")
	require.NoError(t, err)
	require.Equal(t, []junit.Case{{Name: "a b c d", Class: strings.Repeat("ü", 126) + "…", Message: "first line"}}, got.Failed)
}

// The decoder quotes what it does not understand, as long as it is.
func TestParse_ErrorsAreFitToBeShown(t *testing.T) {
	t.Parallel()
	hide := func(text string) string { return strings.ReplaceAll(text, "secret", "***") }
	for _, text := range []string{"<testsuite>&%s", "<testsuite>&%s;", "<%s/>", "<testsuite></%s>", `<?xml version="%s"?>`, `<?xml version="1.0" encoding="%s"?>`} {
		_, err := junit.Parse(strings.NewReader(strings.ReplaceAll(text, "%s", "secret"+strings.Repeat("x", 9000))), hide)
		require.Error(t, err)
		require.LessOrEqual(t, len(err.Error()), junit.MaxMessage)
		require.NotContains(t, err.Error(), "secret")
	}
}

// A secret that was cut is no longer known as one.
func TestParse_HidesBeforeItCuts(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("secret", 20)
	hide := func(text string) string { return strings.ReplaceAll(text, secret, "***") }
	for before := range 2 * junit.MaxMessage {
		around := strings.Repeat("x", before) + secret
		got, err := junit.Parse(strings.NewReader("<testsuite name='"+around+"'><error>"+around+"</error><testcase name='"+around+"' classname='"+around+"'><failure message='"+around+"'/></testcase></testsuite>"), hide)
		require.NoError(t, err)
		require.Len(t, got.Failed, 2)
		for _, text := range []string{got.Suites[0].Name, got.Failed[0].Name, got.Failed[0].Message, got.Failed[1].Name, got.Failed[1].Class, got.Failed[1].Message} {
			require.NotContains(t, text, "secret")
		}
	}
}

func TestParse_KeepsTheFirstAndCountsAll(t *testing.T) {
	t.Parallel()
	const many = 3000
	got, err := parse("<testsuites>" + strings.Repeat("<testsuite name='s'><testcase name='c'><failure/></testcase></testsuite>", many) + "</testsuites>")
	require.NoError(t, err)
	require.Equal(t, junit.Totals{Failed: many}, got.Totals)
	require.Len(t, got.Failed, junit.MaxFailed)
	require.Len(t, got.Suites, junit.MaxSuites)
}
