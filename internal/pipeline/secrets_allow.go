package pipeline

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// allowMark begins the comment that allows what looks like a secret and is
// none, as gitleaks:allow does for gitleaks. What follows it is the reason.
const allowMark = "aphex:allow-secret"

// AllowedSecret is a text that looks like a secret and that a comment allows.
type AllowedSecret struct {
	// File, Line, Column and Path say where it stands, as those of a Finding.
	File   string
	Line   int
	Column int
	Path   string
	// What it looks like, such as "a GitHub token".
	What string
	// Reason is what the comment says, on one line and without secrets.
	Reason string
}

// String returns "file:line:column: path: secret allowed: reason".
func (a AllowedSecret) String() string {
	return Finding{File: a.File, Line: a.Line, Column: a.Column, Path: a.Path, Message: "secret allowed: " + a.Reason}.String()
}

// allowance is a comment with allowMark.
type allowance struct {
	line, column int  // of its #
	alone        bool // on its line, and so about the one below
	reason       string
	void         string // why it allows nothing
	used         bool
}

// allowComment fits where such a comment may begin.
var allowComment = regexp.MustCompile(`(?:^|[ \t])(#[ \t]*(` + allowMark + `)):?(?:\s|$)`)

// inText is what allowMark is replaced by to see whether it is part of a value.
// Nobody writes these characters.
var inText = regexp.MustCompile("\ue000([0-9]+)\ue001")

// allowances returns the comments that allow secrets by their line. What only
// reads like one, as in a command, is none; in a text that is not valid YAML
// nobody can tell.
func (d *document) allowances() map[int]*allowance {
	type candidate struct {
		line   string
		number int
		match  []int
	}
	found := map[int]*allowance{}
	var candidates []candidate
	var marked strings.Builder
	number := 0
	for line := range strings.SplitAfterSeq(d.text, "\n") {
		number++
		rest := 0
		for _, match := range allowComment.FindAllStringSubmatchIndex(line, -1) {
			fmt.Fprintf(&marked, "%s\ue000%d\ue001", line[rest:match[4]], len(candidates))
			rest = match[5]
			candidates = append(candidates, candidate{line, number, match})
		}
		marked.WriteString(line[rest:])
	}
	if len(candidates) == 0 {
		return found
	}
	values := map[int]bool{}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(marked.String()), &root); err == nil {
		walk(&root, nil, func(node *yaml.Node, _ place) {
			for _, match := range inText.FindAllStringSubmatch(node.Value, -1) {
				if index, err := strconv.Atoi(match[1]); err == nil {
					values[index] = true
				}
			}
		})
	}
	odd := strings.ContainsAny(strings.ReplaceAll(d.text, "\r\n", "\n"), "\r\u0085\u2028\u2029")
	for i, c := range candidates {
		if values[i] || found[c.number] != nil {
			continue
		}
		found[c.number] = newAllowance(c.line, c.number, c.match)
		if odd {
			found[c.number].void = "what a line is cannot be told, since the file has line breaks other than LF and CRLF; remove them"
		}
	}
	return found
}

func newAllowance(line string, number int, match []int) *allowance {
	reason := strings.TrimPrefix(line[match[3]:], ":")
	reason = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, reason)
	a := &allowance{
		line: number, column: 1 + utf8.RuneCountInString(line[:match[2]]), reason: strings.Join(strings.Fields(reason), " "),
		alone: strings.TrimLeft(line[:match[2]], " \t") == "",
	}
	words := slices.DeleteFunc(strings.Fields(reason), func(word string) bool { return !strings.ContainsFunc(word, unicode.IsLetter) })
	if len(words) < 2 { // one word is an initial or a sigh
		a.void = "it gives no reason; write one of two words or more behind it"
	}
	return a
}

// span is where a value stands. No comment can stand inside of it, so that one
// about the line where it begins is about all of it.
type span struct {
	begin, end int // bytes
	line       int
}

func (s span) holds(hit secretHit) bool {
	return hit.inText && s.begin <= hit.offset && hit.offset < s.end
}

// properties are anchors and tags before a value.
var properties = regexp.MustCompile(`^(?:[&!]\S*\s+)+`)

// spanOf returns where the value that begins at an offset stands. One that
// cannot be followed is empty.
func (d *document) spanOf(node *yaml.Node, begin int) span {
	begin += len(properties.FindString(d.text[begin:]))
	end := 0
	switch {
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		if header := strings.IndexByte(d.text[begin:], '\n'); header >= 0 {
			end = wordsEnd(d.text, begin+header, node.Value)
		}
	case node.Style&yaml.SingleQuotedStyle != 0:
		end = wordsEnd(d.text, min(begin+1, len(d.text)), strings.ReplaceAll(node.Value, "'", "''"))
	case node.Style&yaml.DoubleQuotedStyle != 0:
		end = quoteEnd(d.text, begin)
	default:
		end = wordsEnd(d.text, begin, node.Value)
	}
	return span{begin: begin, end: end, line: node.Line}
}

// offsets returns a function that finds the byte at a line and column. Asked in
// the order of the text it reads on where it has been.
func offsets(text string) func(line, column int) int {
	lines := []int{0}
	for line := range strings.SplitAfterSeq(text, "\n") {
		lines = append(lines, lines[len(lines)-1]+len(line))
	}
	atLine, atColumn, at := 1, 1, 0
	return func(line, column int) int {
		line = min(max(1, line), len(lines))
		if line != atLine || column < atColumn {
			atLine, atColumn, at = line, 1, lines[line-1]
		}
		for ; atColumn < column && at < len(text); atColumn++ {
			_, size := utf8.DecodeRuneInString(text[at:])
			at += size
		}
		return at
	}
}

// wordsEnd returns the offset behind the words of value, which stand one after
// the other from begin on, or 0. Only double quotes change words.
func wordsEnd(text string, begin int, value string) int {
	const blank = " \t\r\n"
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(blank, r) }) {
		begin = len(text) - len(strings.TrimLeft(text[begin:], blank))
		if !strings.HasPrefix(text[begin:], word) {
			return 0
		}
		begin += len(word)
	}
	return begin
}

// quoteEnd returns the offset of the double quote that closes the one at begin,
// or 0.
func quoteEnd(text string, begin int) int {
	for i := begin + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return 0
}

// addSecrets records the secrets as findings, those that a comment allows as
// allowed, and the comments that allow nothing as findings. complete says that
// all values have been looked at.
func (d *document) addSecrets(hits []secretHit, complete bool) {
	allowances := d.allowances()
	for _, hit := range hits {
		allowing := d.allowing(hit, allowances)
		if allowing != nil {
			allowing.used = true
		}
		if allowing != nil && allowing.void == "" {
			d.allowed = append(d.allowed, AllowedSecret{
				File: d.file, Line: hit.line, Column: hit.column, Path: d.path(hit.place), What: hit.what, Reason: d.secrets.mask(allowing.reason),
			})
			continue
		}
		hit.inComment = hit.inComment && complete
		d.addSecret(hit, d.remedy(hit, allowing, allowances))
	}
	slices.SortStableFunc(d.allowed, func(a, b AllowedSecret) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if d.manySecrets {
		last := hits[len(hits)-1]
		d.addAt(last.line, last.column, "", fmt.Sprintf("%d texts or more look like secrets; no more are looked for, so the file cannot be accepted", maxSecrets))
		return
	}
	for _, a := range allowances {
		if complete && !a.used {
			where := "its line"
			if a.alone {
				where = "the line below it"
			}
			d.findings = append(d.findings, Finding{File: d.file, Line: a.line, Column: a.column, Message: fmt.Sprintf(
				"%s allows nothing here: %s has nothing that looks like a secret; remove the comment, or put it where it belongs", allowMark, where)})
		}
	}
}

// allowing returns the comment about a hit, or nil. What stands in such a
// comment itself is allowed by none.
func (d *document) allowing(hit secretHit, allowances map[int]*allowance) *allowance {
	if a := allowances[hit.line]; a != nil && hit.column >= a.column {
		return nil
	}
	lines := []int{hit.line}
	for _, s := range d.spans {
		if s.holds(hit) {
			lines = append(lines, s.line)
		}
	}
	for _, line := range lines {
		if a := allowances[line]; a != nil && !a.alone {
			return a
		}
		if a := allowances[line-1]; a != nil && a.alone {
			return a
		}
	}
	return nil
}

// remedy says what to do about a hit.
func (d *document) remedy(hit secretHit, allowing *allowance, allowances map[int]*allowance) string {
	const remove = "a configuration must not hold secrets: remove it, replace it at its issuer if it was ever committed, and keep it in a secret store"
	if allowing != nil {
		return fmt.Sprintf("%s; the comment %s in line %d does not allow it: %s", remove, allowMark, allowing.line, allowing.void)
	}
	if a := allowances[hit.line]; a != nil && hit.column >= a.column {
		return remove + "; no reason of " + allowMark + " may hold one"
	}
	for _, s := range d.spans {
		if s.holds(hit) && s.line < hit.line {
			return fmt.Sprintf("%s; if it is none, write the comment \"# %s\" and the reason alone above line %d, where the text begins", remove, allowMark, s.line)
		}
	}
	return fmt.Sprintf("%s; if it is none, write the comment \"# %s\" and the reason at the end of the line or alone above it", remove, allowMark)
}

// addSecret records a finding. Its sentence holds nothing of the document but
// the hint, so that secrets such as "secret" do not garble it.
func (d *document) addSecret(hit secretHit, remedy string) {
	where := ""
	if hit.inComment {
		where = " in a comment"
	}
	d.findings = append(d.findings, Finding{
		File: d.file, Line: hit.line, Column: hit.column, Path: d.path(hit.place),
		Message: fmt.Sprintf("%s looks like %s%s; %s", hint(hit.text), hit.what, where, remedy),
	})
}
