package redact

import (
	"fmt"
	"io"
	"log/slog"
)

// Marker stands wherever a secret was.
const Marker = "[REDACTED]"

// Secret is a value that prints as [Marker] in every way of printing it: the
// fmt verbs, slog and JSON. The zero value is an empty secret.
type Secret struct{ value string }

// NewSecret returns value as a Secret.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal returns the value itself, for the one place that uses it.
func (s Secret) Reveal() string { return s.value }

// IsEmpty reports whether there is no value.
func (s Secret) IsEmpty() bool { return s.value == "" }

// String returns [Marker].
func (s Secret) String() string { return Marker }

// GoString returns [Marker].
func (s Secret) GoString() string { return Marker }

// Format writes [Marker] for every verb and flag.
func (s Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, Marker) }

// LogValue returns [Marker].
func (s Secret) LogValue() slog.Value { return slog.StringValue(Marker) }

// MarshalJSON returns [Marker] as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Marker + `"`), nil }

// MarshalText returns [Marker], which covers YAML, XML and map keys.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Marker), nil }

var (
	_ fmt.Formatter  = Secret{}
	_ fmt.Stringer   = Secret{}
	_ fmt.GoStringer = Secret{}
	_ slog.LogValuer = Secret{}
)
