package mail

import (
	"slices"
	"strings"
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

// Envelope is what MAIL and RCPT said: the reverse-path, the recipients and the parameters of both.
type Envelope struct {
	From       Address // the reverse-path; the zero Address is <>
	To         []Recipient
	EnvID      string // decoded from xtext (RFC 3461, 4.4)
	Ret        Ret
	Body       BodyType
	SMTPUTF8   bool // RFC 6531
	RequireTLS bool // RFC 8689
}

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
