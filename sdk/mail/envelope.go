package mail

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// BodyType is the value of the BODY parameter of MAIL (RFC 6152, RFC 3030): which octets the content may hold.
type BodyType uint8

// The body types. The zero value is 7-bit, as RFC 5321, 2.3.1 says of a message that declares nothing.
const (
	Body7Bit   BodyType = iota // lines of US-ASCII
	Body8Bit                   // lines of octets
	BodyBinary                 // any octets, no line limit
)

// String returns the word used on the wire: 7BIT, 8BITMIME or BINARYMIME.
func (b BodyType) String() string {
	switch b {
	case Body8Bit:
		return "8BITMIME"
	case BodyBinary:
		return "BINARYMIME"
	default:
		return "7BIT"
	}
}

// Ret says how much of a message goes back in a report (RFC 3461, 4.3).
type Ret uint8

// The values of RET.
const (
	RetUnset   Ret = iota // the sender did not say
	RetFull               // the whole message
	RetHeaders            // its headers only
)

// String returns the word used on the wire, or "" when unset.
func (r Ret) String() string {
	switch r {
	case RetFull:
		return "FULL"
	case RetHeaders:
		return "HDRS"
	default:
		return ""
	}
}

// Notify says which reports the sender wants for a recipient (RFC 3461, 4.1). Zero: the sender did not say, which means
// failure, and delay if the server tells of delays.
type Notify uint8

// The bits of Notify. NotifyNever stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Wants reports whether a report of the given kind is wanted.
func (n Notify) Wants(kind Notify) bool {
	if n == 0 {
		return kind == NotifyFailure || kind == NotifyDelay
	}
	return n&kind != 0
}

// String returns the value of the NOTIFY parameter, or "" when unset.
func (n Notify) String() string {
	if n&NotifyNever != 0 {
		return "NEVER"
	}
	var words []string
	for _, w := range []struct {
		bit  Notify
		word string
	}{{NotifySuccess, "SUCCESS"}, {NotifyFailure, "FAILURE"}, {NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}

// Recipient is one forward-path with its ESMTP parameters.
type Recipient struct {
	Address  Address
	Notify   Notify
	Original string // ORCPT as "type;address", decoded from xtext; "" when not given (RFC 3461, 4.2)
}

// Check returns an error when the recipient may not go onto a wire or into a report.
func (r Recipient) Check() error {
	if err := checkRecipientAddress(r.Address); err != nil {
		return err
	}
	if n := r.Notify; n > NotifyNever|NotifySuccess|NotifyFailure|NotifyDelay || n&NotifyNever != 0 && n != NotifyNever {
		return fmt.Errorf("%d is no value of NOTIFY, in which NEVER stands alone", n)
	}
	if r.Original == "" {
		return nil
	}
	kind, text, ok := strings.Cut(r.Original, ";")
	if !ok || !isAtom(kind) || text == "" {
		return fmt.Errorf("the original recipient %s is not a type, a semicolon and an address", quoteShort(r.Original))
	}
	return checkParameter("original recipient", r.Original, maxOriginal)
}

// Limits of RFC 3461, 4.2 and 4.4, in characters.
const (
	maxOriginal = 500
	maxEnvID    = 100
)

// checkParameter lets text through that stays on one line wherever it is written.
func checkParameter(what, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("the %s has %d characters, more than %d", what, len(text), most)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("the %s %q is not UTF-8", what, text)
	}
	for _, c := range text {
		if unicode.IsControl(c) || breaksLine(c) {
			return fmt.Errorf("the %s %q holds the control character %U", what, text, c)
		}
	}
	return nil
}

// Envelope is what MAIL and RCPT said: the reverse-path, the recipients and the parameters of both.
type Envelope struct {
	From       Address // the reverse-path; the zero Address is <>
	To         []Recipient
	EnvID      string // decoded from xtext (RFC 3461, 4.4)
	Ret        Ret
	Body       BodyType
	SMTPUTF8   bool // RFC 6531
	RequireTLS bool // RFC 8689
	Priority   int8 // MT-PRIORITY, from -9 to 9; the more, the sooner it goes out (RFC 6710)
}

// MaxPriority bounds a priority; the lowest is as far below 0 (RFC 6710).
const MaxPriority = 9

// Clone returns a copy that shares no slice with e.
func (e Envelope) Clone() Envelope {
	e.To = slices.Clone(e.To)
	return e
}

// NeedsUTF8 reports whether the envelope holds an address that only an SMTPUTF8 peer can take.
func (e Envelope) NeedsUTF8() bool {
	if !e.From.IsASCII() {
		return true
	}
	return slices.ContainsFunc(e.To, func(r Recipient) bool { return !r.Address.IsASCII() })
}

// Check returns an error when something in the envelope may not go onto a wire or into a report.
func (e Envelope) Check() error {
	if err := checkParameter("envelope ID", e.EnvID, maxEnvID); err != nil {
		return err
	}
	if e.Ret > RetHeaders || e.Body > BodyBinary {
		return fmt.Errorf("%d is no value of RET or %d none of BODY", e.Ret, e.Body)
	}
	if e.Priority < -MaxPriority || e.Priority > MaxPriority {
		return fmt.Errorf("%d is no priority; they go from %d to %d", e.Priority, -MaxPriority, MaxPriority)
	}
	for i, r := range e.To {
		if err := r.Check(); err != nil {
			return fmt.Errorf("recipient %d: %w", i+1, err)
		}
	}
	return nil
}
