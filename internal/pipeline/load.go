package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Load reads a configuration. name is used in findings only; it is usually
// the path inside the repository.
//
// The result has its defaults filled in. Load does no I/O and is safe for
// concurrent use.
//
// Errors: *InvalidError with everything that is wrong. Any other error is a
// defect of aphex.
func Load(name string, data []byte) (*Config, error) {
	known, err := loadSchema()
	if err != nil {
		return nil, err
	}
	doc := &document{
		file: name, values: map[string]*yaml.Node{}, keys: map[string]*yaml.Node{}, flagged: map[string]bool{}, hidden: map[string]bool{},
	}
	if !doc.decodeText(data) {
		return nil, invalid(doc.findings)
	}
	hits := doc.scanText()
	if doc.manySecrets {
		doc.addSecrets(hits, false)
		return nil, invalid(doc.findings)
	}
	root := doc.parse()
	if root == nil {
		doc.addSecrets(hits, false)
		return nil, invalid(doc.findings)
	}
	hits = doc.scanValues(root, hits)
	if doc.manySecrets {
		doc.addSecrets(hits, false)
		return nil, invalid(doc.findings)
	}
	value := doc.convert(root, nil)
	doc.addSecrets(hits, true)
	if doc.tooLarge {
		return nil, invalid(doc.findings)
	}
	if err := doc.checkSchema(known, value); err != nil {
		return nil, err
	}
	top := cursor{doc: doc, value: value}
	doc.checkRules(top)
	if len(doc.findings) > 0 {
		return nil, invalid(doc.findings)
	}
	config := decode(top)
	config.AllowedSecrets = doc.allowed
	return config, nil
}

// decodeText checks that data is text of a bearable size. It returns false if
// there is no point in reading on.
func (d *document) decodeText(data []byte) bool {
	if len(data) > maxBytes {
		d.addAt(1, 1, "", fmt.Sprintf("the file has %d bytes; allowed are %d", len(data), maxBytes))
		return false
	}
	for _, mark := range []string{"\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(mark)) {
			d.addAt(1, 1, "", "the file is encoded in UTF-16; save it as UTF-8")
			return false
		}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		valid := 0
		for valid < len(data) {
			r, size := utf8.DecodeRune(data[valid:])
			if r == utf8.RuneError && size <= 1 {
				break
			}
			valid += size
		}
		line, column := position(string(data[:valid]), valid)
		d.addAt(line, column, "", fmt.Sprintf("the byte 0x%02x is not valid UTF-8; save the file as UTF-8", data[valid]))
		return false
	}
	d.text = string(data)
	return true
}

// position returns line and column of a byte offset.
func position(text string, offset int) (line, column int) {
	before := text[:offset]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// parse returns the root value of the document, or nil with a finding.
func (d *document) parse() *yaml.Node {
	decoder := yaml.NewDecoder(strings.NewReader(d.text))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		d.addAt(1, 1, "", "the file is empty; required are the keys version, build and environments")
		return nil
	case err != nil:
		d.addSyntax(err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.addSyntax(err)
		return nil
	default:
		d.addAt(second.Line, max(1, second.Column), "", "a second document begins here; allowed is one per file")
		return nil
	}
	if len(first.Content) != 1 {
		d.addAt(1, 1, "", "the file is empty; required are the keys version, build and environments")
		return nil
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		d.addAt(1, 1, "", "the file is empty; required are the keys version, build and environments")
		return nil
	}
	return root
}

// How the YAML library says where it stopped reading. It leaves the line out if
// it is the first and for anchors, and counts from 0 for some messages.
var (
	syntaxLine    = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)
	countsFrom0   = regexp.MustCompile(`^did not find expected (?:<document start>|node content|'-' indicator|key|',' or '[\]}]')`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// syntaxPlace returns the line where the YAML library stopped reading, and why.
func (d *document) syntaxPlace(err error) (line int, reason string) {
	match := syntaxLine.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	line, reason = 1, match[2]
	if number, err := strconv.Atoi(match[1]); err == nil {
		line = max(1, number)
		if countsFrom0.MatchString(reason) {
			line++
		}
	}
	if match := unknownAnchor.FindStringSubmatch(reason); match != nil {
		alias := regexp.MustCompile(`(?m)(?:^|[\s,:\[{-])(\*` + regexp.QuoteMeta(match[1]) + `)(?:$|[\s,:\]}])`)
		if at := alias.FindStringSubmatchIndex(d.text); at != nil {
			line, _ = position(d.text, at[2])
		}
	}
	if strings.Contains(reason, "control characters") {
		at := strings.IndexFunc(d.text, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n\u0085", r) })
		line, _ = position(d.text, max(0, at))
	}
	return line, reason
}

// addSyntax records what the YAML library could not read.
func (d *document) addSyntax(err error) {
	line, reason := d.syntaxPlace(err)
	lines := strings.Split(d.text, "\n")
	line = min(line, len(lines))
	for line > 1 && strings.TrimSpace(lines[line-1]) == "" {
		line-- // what is missing at the end is missing behind the last text
	}
	// The library reports a line beside that of the tab for some documents.
	for _, candidate := range []int{line, line + 1, line - 1} {
		if candidate >= 1 && candidate <= len(lines) {
			content := lines[candidate-1]
			indent := content[:len(content)-len(strings.TrimLeft(content, " \t"))]
			if tab := strings.IndexByte(indent, '\t'); tab >= 0 {
				d.addAt(candidate, tab+1, "", "the line is indented with a tab; YAML allows only spaces there")
				return
			}
		}
	}
	content := lines[line-1]
	column := 1 + len(content) - len(strings.TrimLeft(content, " "))
	message := "not valid YAML: " + reason
	switch {
	case strings.Contains(reason, "mapping values are not allowed"):
		message += "; put a value that contains \": \" in quotes, and check the indentation"
	case strings.Contains(reason, "cannot start any token"):
		message += "; put a value that begins with @, ` or % in quotes"
	case strings.Contains(reason, "unknown anchor"):
		message += "; define the anchor (&name) before it is used, or put text that begins with * in quotes"
	}
	d.addAt(line, column, "", message)
}
