package l402

import (
	"fmt"
	"log/slog"
)

// Secret is a key or password in plain text. It prints as "[redacted]" with every
// verb, in JSON, YAML and logs; only Reveal gives it away.
type Secret string

const redacted = "[redacted]"

// Reveal is the text itself, for the code that sends or compares it.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter: no verb and no flag prints the text.
func (Secret) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML implements yaml.Marshaler.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
