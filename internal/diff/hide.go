package diff

import (
	"encoding/json"
	"strings"
)

// hiddenValue stands for a secret.
const hiddenValue = "****"

// secretEndings are the ends of keys whose literal values are secrets, lower
// case and without separators.
func secretEndings() []string {
	return []string{
		"password", "passwd", "passphrase", "secret", "secretstring", "secretkey", "secretaccesskey", "token", "apikey", "privatekey", "clientkey",
	}
}

// isSecretKey reports whether the value of a key is a secret by the key's name.
func isSecretKey(key string) bool {
	key = strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(key))
	for _, ending := range secretEndings() {
		if strings.HasSuffix(key, ending) {
			return true
		}
	}
	return false
}

// hide replaces the secrets in a value at a path. The value itself stays as it
// is. hidden says that there were any.
func hide(steps []step, value any) (out any, hidden bool) {
	secret := false
	for _, s := range steps {
		switch {
		case !s.isKey: // a list's entries are what the list is
		case s.key == "Ref" || s.key == "Fn::GetAtt" || s.key == "Fn::ImportValue":
			secret = false
		case strings.HasPrefix(s.key, "Fn::"):
		default:
			secret = isSecretKey(s.key)
		}
	}
	return hideIn(value, secret)
}

// hideIn replaces the secrets in a value, which is one itself if secret is
// set.
func hideIn(value any, secret bool) (out any, hidden bool) {
	switch v := value.(type) {
	case string:
		if secret && v != "" && !strings.HasPrefix(v, "{{resolve:") {
			return hiddenValue, true
		}
	case json.Number:
		if secret {
			return hiddenValue, true
		}
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var h bool
			list[i], h = hideIn(v[i], secret)
			hidden = hidden || h
		}
		return list, hidden
	case map[string]any:
		return hideInObject(v, secret)
	}
	return value, false
}

// hideInObject replaces the secrets in an object. What a function makes of
// texts is a secret where the function's value is one; what it refers to is
// none.
func hideInObject(object map[string]any, secret bool) (out any, hidden bool) {
	name, isFunction := function(object)
	clean := make(map[string]any, len(object))
	for key, entry := range object {
		inside := isSecretKey(key)
		if isFunction {
			inside = secret && name != "Ref" && name != "Fn::GetAtt" && name != "Fn::ImportValue"
		}
		var h bool
		clean[key], h = hideIn(entry, inside)
		hidden = hidden || h
	}
	return clean, hidden
}

// detail makes the detail of a leaf, without secrets.
func (l leaf) detail() Detail {
	d := Detail{Path: pathOf(l.steps)}
	if l.hasOld {
		value, hidden := hide(l.steps, l.old)
		d.Old, d.Hidden = encode(value), hidden
	}
	if l.hasNew {
		value, hidden := hide(l.steps, l.new)
		d.New, d.Hidden = encode(value), d.Hidden || hidden
	}
	return d
}

// encode is JSON without the escapes meant for HTML.
func encode(value any) json.RawMessage {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil { // it came from JSON
		panic(err)
	}
	return json.RawMessage(strings.TrimRight(out.String(), "\n"))
}
