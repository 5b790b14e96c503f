package calls

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/schema"
)

// ErrLost says that the connection to the plugin ended before the answer came. Whether the plugin did its work is not
// known.
var ErrLost = errors.New("the plugin went away before it answered")

// lost is ErrLost with the transport's words; its errors are not ours to be found by errors.Is.
func lost(why error) error { return fmt.Errorf("%w (%s)", ErrLost, why.Error()) }

// ErrBusy says that the plugin has so many calls to answer that no more are sent to it.
var ErrBusy = errors.New("the plugin has too many calls to answer")

// ErrUnsupported says that the plugin does not have the method that was called.
var ErrUnsupported = errors.New("the plugin does not do this")

// Failed is what a plugin said of a call that it could not do.
type Failed struct {
	Text  string // one line, for the operator
	Panic bool   // the plugin's code panicked
}

// Error returns the plugin's words.
func (f *Failed) Error() string {
	if f.Panic {
		return "the plugin panicked: " + f.Text
	}
	return f.Text
}

// BadAnswer says that an answer broke the contract, so that it was not used.
type BadAnswer struct {
	Call string // such as "rcpt"
	Err  error
}

// Error says what is wrong with the answer.
func (b *BadAnswer) Error() string {
	return fmt.Sprintf("the plugin's answer to %s breaks the contract: %v", b.Call, b.Err)
}

// Unwrap returns what is wrong.
func (b *BadAnswer) Unwrap() error { return b.Err }

// text makes a string that protobuf can carry: its strings are UTF-8, and one that is not would fail the whole frame.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// oneLine makes foreign words fit for a log: one line without controls, at most limit bytes.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// Printable takes the controls out of a line, so that a plugin can't paint on an operator's terminal.
func Printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s))
}

// Problems returns what a plugin found wrong with its configuration, fit for a terminal. Warnings are left out.
func Problems(res *pb.ConfigureResponse) []schema.Problem {
	var out []schema.Problem
	for _, d := range res.GetDiagnostics() {
		if d.GetSeverity() == pb.Severity_SEVERITY_WARNING {
			continue
		}
		p := schema.Problem{Summary: oneLine(d.GetSummary(), maxReason), Detail: oneLine(d.GetDetail(), 2000)}
		for _, step := range d.GetPath() {
			p.Path = append(p.Path, oneLine(step, 200))
		}
		out = append(out, p)
	}
	return out
}
