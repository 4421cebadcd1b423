package jsonlimit

import "fmt"

// Document is the bound for the documents of a CDK app: the deepest templates
// seen have some twenty levels.
const Document = 256

// Check returns an error that names the place unless the objects and lists of
// data are nested at most limit deep. It takes one pass and no memory, and does
// not look whether data is JSON otherwise.
func Check(data []byte, limit int) error {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > limit {
				return fmt.Errorf("it is nested more than %d levels deep (at byte %d)", limit, i)
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return nil
}
