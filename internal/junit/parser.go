package junit

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

const (
	// maxDepth bounds how deep elements are nested. Deeply nested suites have
	// some ten levels.
	maxDepth = 100
	// maxText bounds what is read of a failure's text for its first line.
	maxText = 256 << 10
)

// outcome is how a test case ended. The greater one counts.
type outcome int

const (
	passed outcome = iota
	skipped
	failed
)

type parser struct {
	source *source
	in     *xml.Decoder
	hide   func(string) string
	report Report

	// open are the elements that have begun; their names are as written.
	open []xml.Name
	// suites are those of open that are suites.
	suites []openSuite
	// afterText says that the last token was text that ended with a tag.
	afterText bool
	begun     bool
}

// openSuite is a suite that has not ended. Its index in the report is below
// zero until it has a test case.
type openSuite struct {
	name  string
	index int
}

func newParser(r io.Reader, hide func(string) string) *parser {
	p := &parser{source: &source{in: bufio.NewReader(r)}, hide: hide}
	p.in = xml.NewDecoder(p.source)
	p.in.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) {
		return in, errors.New("reports in UTF-8 are read alone")
	}
	return p
}

// next returns the next token. Names have no name spaces, which cost memory.
func (p *parser) next() (xml.Token, error) {
	p.source.begin(p.afterText)
	token, err := p.in.RawToken()
	if errors.Is(err, io.EOF) && len(p.open) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, p.at(err)
	}
	_, isText := token.(xml.CharData)
	p.afterText = isText && !p.source.section()
	switch t := token.(type) {
	case xml.StartElement:
		if len(p.open) == maxDepth {
			return nil, p.at(fmt.Errorf("elements are nested more than %d deep", maxDepth))
		}
		p.open = append(p.open, t.Name)
	case xml.EndElement:
		if len(p.open) == 0 || p.open[len(p.open)-1] != t.Name {
			return nil, p.at(fmt.Errorf("</%s> ends nothing that is open", p.line(t.Name.Local, MaxName)))
		}
		p.open = p.open[:len(p.open)-1]
	}
	return token, nil
}

// problem is an error whose text is fit to be shown: the decoder's may quote as
// much of the report as there is.
type problem struct {
	text string
	err  error
}

func (p *problem) Error() string { return p.text }
func (p *problem) Unwrap() error { return p.err }

// at says where err was met, unless it does so itself or is the end.
func (p *parser) at(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	text := err.Error()
	if _, ok := errors.AsType[*xml.SyntaxError](err); !ok {
		line, _ := p.in.InputPos()
		text = fmt.Sprintf("line %d: %s", line, text)
	}
	return &problem{text: p.line(text, MaxMessage), err: err}
}

// run reads everything. Reports that follow one another in one file are taken
// together.
func (p *parser) run() error {
	for {
		token, err := p.next()
		if errors.Is(err, io.EOF) {
			if !p.begun {
				return errors.New("it holds no XML element")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			err = p.begin(t)
		case xml.EndElement:
			if isSuite(t.Name) {
				p.suites = p.suites[:len(p.suites)-1]
			}
		}
		if err != nil {
			return err
		}
	}
}

// begin handles an element outside of test cases.
func (p *parser) begin(start xml.StartElement) error {
	if len(p.open) == 1 && !isSuite(start.Name) {
		return p.at(fmt.Errorf("it begins with <%s>; test reports begin with <testsuites> or <testsuite>", p.line(start.Name.Local, MaxName)))
	}
	p.begun = true
	switch start.Name.Local {
	case "testsuites", "testsuite":
		p.suites = append(p.suites, openSuite{name: p.attribute(start, "name"), index: -1})
	case "testcase":
		return p.testCase(start)
	case "failure", "error": // of a suite that could not even begin
		message, err := p.complaint(start)
		p.count(failed, Case{Name: p.suites[len(p.suites)-1].name, Message: message})
		return err
	}
	return nil
}

func isSuite(name xml.Name) bool { return name.Local == "testsuite" || name.Local == "testsuites" }

// testCase reads a test case. Only what stands in it directly counts: tools
// that try again tell of further failures in elements of other names.
func (p *parser) testCase(start xml.StartElement) error {
	level := len(p.open)
	var c Case
	how := passed
	if status := value(start, "status"); status == "notrun" || status == "disabled" {
		how = skipped
	}
	for {
		token, err := p.next()
		if err != nil {
			if how == failed {
				p.count(how, c)
			}
			return err
		}
		if _, ended := token.(xml.EndElement); ended && len(p.open) < level {
			p.count(how, c)
			return nil
		}
		child, begins := token.(xml.StartElement)
		if !begins || len(p.open) != level+1 {
			continue
		}
		switch child.Name.Local {
		case "skipped":
			how = max(how, skipped)
		case "failure", "error":
			message, err := p.complaint(child)
			if how != failed {
				how, c = failed, Case{Name: p.attribute(start, "name"), Class: p.attribute(start, "classname"), Message: message}
			}
			if err != nil {
				p.count(how, c)
				return err
			}
		}
	}
}

// count adds a test case to the innermost suite and to the whole.
func (p *parser) count(how outcome, c Case) {
	one := Totals{Passed: 1}
	switch how {
	case failed:
		one = Totals{Failed: 1}
		if len(p.report.Failed) < MaxFailed {
			p.report.Failed = append(p.report.Failed, c)
		}
	case skipped:
		one = Totals{Skipped: 1}
	case passed:
	}
	p.report.Totals = p.report.Plus(one)
	suite := &p.suites[len(p.suites)-1]
	if suite.index < 0 && len(p.report.Suites) < MaxSuites {
		suite.index = len(p.report.Suites)
		p.report.Suites = append(p.report.Suites, Suite{Name: suite.name})
	}
	if suite.index >= 0 {
		sum := &p.report.Suites[suite.index]
		sum.Totals = sum.Plus(one)
	}
}

// complaint reads an element to its end and returns why a test failed: the
// first line of its message, of its text where that says nothing, or the type.
func (p *parser) complaint(start xml.StartElement) (string, error) {
	level := len(p.open)
	var text strings.Builder
	var token xml.Token
	var err error
	for err == nil && len(p.open) >= level {
		token, err = p.next()
		if data, ok := token.(xml.CharData); ok {
			if text.Len() == 0 {
				data = bytes.TrimLeftFunc(data, unicode.IsSpace)
			}
			text.Write(data[:min(len(data), maxText-text.Len())])
		}
	}
	message := value(start, "message")
	// go-junit-report has no other message than "Failed".
	if said := strings.TrimSpace(message); (said == "" || said == "Failed") && text.Len() > 0 {
		message = text.String()
	}
	if strings.TrimSpace(message) == "" {
		message = value(start, "type")
	}
	return p.line(message, MaxMessage), err
}

// attribute is a name of an element, fit to be shown.
func (p *parser) attribute(start xml.StartElement, name string) string {
	return p.line(value(start, name), MaxName)
}

func value(start xml.StartElement, name string) string {
	for _, a := range start.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// line is Line of text without secrets.
func (p *parser) line(text string, limit int) string { return Line(p.hide(text), limit) }
