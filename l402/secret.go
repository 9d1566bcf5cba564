package l402

import (
	"fmt"
	"log/slog"
)

// Secret is a key or password in plain text. It prints as "[redacted]" with every verb, in JSON,
// YAML and logs. Only Reveal returns the text.
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret text, for the code that sends or compares it.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter: no verb and no flag prints the text.
func (Secret) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler, which JSON encoders use too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML implements yaml.Marshaler.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
