package schema

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password, a token or a key. As a value it prints as "(secret)" by fmt, encoding/json and slog; what they give
// a type no say in, the key of a JSON object and the verb %p, still shows it. Its text is string(s).
type Secret string

const hidden = "(secret)"

// String hides the text.
func (Secret) String() string { return hidden }

// GoString hides the text from %#v.
func (Secret) GoString() string { return hidden }

// Format hides the text from every verb; without it, fmt would show it to a verb that does not fit, such as %d.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText hides the text from other encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON hides the text from encoding/json.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// LogValue hides the text from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
