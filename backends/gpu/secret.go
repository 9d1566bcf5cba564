package gpu

import (
	"fmt"
	"log/slog"
)

// Secret is a backend's key. It prints as "[redacted]" with every verb, in
// JSON, YAML and logs; only Do reads it.
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter: no verb and no flag prints the key.
func (Secret) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
