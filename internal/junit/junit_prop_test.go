package junit_test

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/junit"
)

// drawn is a report and what it says.
type drawn struct {
	text   strings.Builder
	totals junit.Totals
	// failed are the names of the failed cases, suites those of suites with
	// cases of their own.
	failed []string
	suites int
	cases  int
}

func escaped(text string) string {
	var b strings.Builder
	if xml.EscapeText(&b, []byte(text)) != nil {
		panic("a builder takes everything")
	}
	return b.String()
}

// noise is what may stand between elements.
func noise(t *rapid.T) string {
	return rapid.SampledFrom([]string{
		"", " ", "\n\t", "text &lt;failure/&gt;", "<!-- <testcase/> -->", "<![CDATA[<testcase><failure/></testcase>]]>", "<?pi <x> ?>",
		"<system-out>o<failure_/></system-out>", `<properties><property name="a" value="&quot;"/></properties>`,
	}).Draw(t, "noise")
}

func (d *drawn) suite(t *rapid.T, depth int) {
	name := rapid.SampledFrom([]string{"testsuite", "testsuites"}).Draw(t, "element")
	fmt.Fprintf(&d.text, `<%s name="%s" tests="7" failures="3">`, name, escaped(rapid.String().Draw(t, "suite")))
	own := 0
	for range rapid.IntRange(0, 4).Draw(t, "children") {
		d.text.WriteString(noise(t))
		if depth > 0 && rapid.Bool().Draw(t, "nested") {
			d.suite(t, depth-1)
			continue
		}
		d.testCase(t)
		own++
	}
	d.text.WriteString(noise(t) + "</" + name + ">")
	if own > 0 {
		d.suites++
	}
}

func (d *drawn) testCase(t *rapid.T) {
	name := fmt.Sprintf("case%d", d.cases)
	d.cases++
	fmt.Fprintf(&d.text, `<testcase name="%s" classname="%s" time="0.1">%s`, name, escaped(rapid.String().Draw(t, "class")), noise(t))
	switch rapid.IntRange(0, 4).Draw(t, "end") {
	case 0:
		d.totals.Failed++
		d.failed = append(d.failed, name)
		fmt.Fprintf(&d.text, `<failure message="%s">%s</failure><rerunFailure/>`, escaped(rapid.String().Draw(t, "message")), noise(t))
	case 1:
		d.totals.Failed++
		d.failed = append(d.failed, name)
		d.text.WriteString("<skipped/><error/><failure/>")
	case 2:
		d.totals.Skipped++
		d.text.WriteString("<skipped>" + noise(t) + "</skipped>")
	case 3:
		d.totals.Passed++
		d.text.WriteString("<flakyFailure><failure/><skipped/></flakyFailure>")
	case 4:
		d.totals.Passed++
	}
	d.text.WriteString(noise(t) + "</testcase>")
}

// Feature: aphex-pipeline, Property 13: Test result capture
//
// However suites are nested and whatever stands between test cases, each of
// them is counted once, in its suite and in the whole.
func TestParse_CountsEachTestCaseOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := drawn{}
		d.suite(t, 3)
		got, err := parse(d.text.String())
		require.NoError(t, err, d.text.String())
		require.Equal(t, d.totals, got.Totals)
		require.Equal(t, d.cases, got.Total())
		require.Len(t, got.Suites, d.suites)
		require.Equal(t, d.totals, sum(got.Suites))
		var failed []string
		for _, c := range got.Failed {
			failed = append(failed, c.Name)
		}
		require.Equal(t, d.failed, failed)
	})
}

func sum(suites []junit.Suite) junit.Totals {
	var all junit.Totals
	for _, s := range suites {
		all = all.Plus(s.Totals)
	}
	return all
}
