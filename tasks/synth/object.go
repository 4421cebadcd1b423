package synth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
)

// object is a JSON object with its keys in order and its numbers as they were
// written: an app may write what it is given into a template as text. The zero
// object is empty; a copy shares its entries.
//
//nolint:recvcheck // objects are values in maps and lists, and are written as such
type object struct {
	keys   []string
	values map[string]any // string, bool, json.Number, nil, object, []any
}

// has says whether there is a key.
func (o *object) has(key string) bool {
	_, found := o.values[key]
	return found
}

// set changes the value of a key, or adds the key at the end.
func (o *object) set(key string, value any) {
	if o.values == nil {
		o.values = map[string]any{}
	}
	if !o.has(key) {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// child returns the object at a key; empty if there is none.
func (o *object) child(key string) object {
	below, _ := o.values[key].(object) // absent or of no use
	return below
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := encode(key)
		if err != nil {
			return nil, err
		}
		value, err := encode(o.values[key])
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// encode is JSON without the escapes meant for HTML.
func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode the context: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// decodeObject reads one JSON object, with or without a byte order mark. Of a
// key that is there twice the last value counts, in the place of the first.
func decodeObject(data []byte) (object, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if err := jsonlimit.Check(data, jsonlimit.Document); err != nil {
		return object{}, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	value, err := decodeValue(decoder)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return object{}, err
	}
	decoded, ok := value.(object)
	if !ok {
		return object{}, errors.New("it is no object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return object{}, fmt.Errorf("something follows its end (at byte %d)", decoder.InputOffset())
	}
	return decoded, nil
}

func decodeValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		return decodeEntries(decoder)
	case json.Delim('['):
		list := []any{}
		for decoder.More() {
			value, err := decodeValue(decoder)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := decoder.Token()
		return list, err
	default:
		return token, nil
	}
}

// decodeEntries reads an object after its opening brace.
func decodeEntries(decoder *json.Decoder) (object, error) {
	decoded := object{values: map[string]any{}}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return object{}, err
		}
		value, err := decodeValue(decoder)
		if err != nil {
			return object{}, err
		}
		decoded.set(key.(string), value) //nolint:forcetypeassert // the decoder refuses any other key
	}
	_, err := decoder.Token()
	return decoded, err
}

// sorted is a value of the configuration, whose objects have no order: their
// keys are sorted.
func sorted(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := object{}
		for _, key := range slices.Sorted(maps.Keys(value)) {
			out.set(key, sorted(value[key]))
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i := range value {
			out[i] = sorted(value[i])
		}
		return out
	default:
		return value
	}
}

// mergeObjects merges objects deeply as the CLI does: a later one wins, and a
// key is where the first object that has it puts it. Keys that the CLI drops,
// those with a meaning in JavaScript, are dropped. The arguments are not
// changed.
func mergeObjects(layers ...object) object {
	merged := object{}
	for _, layer := range layers {
		for _, key := range layer.keys {
			if key == "__proto__" || key == "constructor" || key == "prototype" {
				continue
			}
			value := layer.values[key]
			if above, isObject := value.(object); isObject {
				value = mergeObjects(merged.child(key), above)
			}
			merged.set(key, value)
		}
	}
	return merged
}
