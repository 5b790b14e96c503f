package mail

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// EnhancedCode is the class.subject.detail of RFC 3463. The zero value means none.
type EnhancedCode [3]int

// String returns "5.7.1", or "" for the zero value.
func (c EnhancedCode) String() string {
	if c == (EnhancedCode{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", c[0], c[1], c[2])
}

// Reply is an SMTP reply: what a peer was told, or told us. It is also an error, so that a function may return one.
type Reply struct {
	Code     int          // 200 to 599
	Enhanced EnhancedCode // its class equals the code's, or it is zero
	Text     string       // lines parted by "\n"; no CR, no NUL, no other control
}

// Error makes a Reply an error; the text is the reply on one line.
func (r *Reply) Error() string { return r.String() }

// String returns the reply on one line: "550 5.1.1 no such mailbox".
func (r Reply) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", r.Code)
	if e := r.Enhanced.String(); e != "" {
		b.WriteString(" " + e)
	}
	if r.Text != "" {
		b.WriteString(" " + strings.ReplaceAll(r.Text, "\n", " "))
	}
	return b.String()
}

// Positive reports a 2xx code.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 300 }

// Temporary reports a 4xx code.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent reports a 5xx code.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// maxReplyText bounds the text of a reply that we send, in bytes. RFC 5321, 4.5.3.1.5 gives 512 a line; a reader of the
// log gains nothing from more.
const maxReplyText = 2000

// Check returns an error when the reply may not go onto a wire: code out of range, an enhanced code of another class, or
// text with controls.
func (r Reply) Check() error {
	if r.Code < 200 || r.Code > 599 {
		return fmt.Errorf("reply code %d is not between 200 and 599", r.Code)
	}
	if e := r.Enhanced; e != (EnhancedCode{}) {
		if e[0] != r.Code/100 || e[0] == 3 || e[1] < 0 || e[1] > 999 || e[2] < 0 || e[2] > 999 {
			return fmt.Errorf("enhanced code %s does not fit reply code %d", e, r.Code)
		}
	}
	if len(r.Text) > maxReplyText {
		return fmt.Errorf("reply text has %d bytes, more than %d", len(r.Text), maxReplyText)
	}
	if !utf8.ValidString(r.Text) {
		return fmt.Errorf("reply text is not UTF-8")
	}
	for _, c := range r.Text {
		if (c < ' ' && c != '\n') || c == 0x7f || (c >= 0x80 && c < 0xa0) {
			return fmt.Errorf("reply text holds the control character %U", c)
		}
	}
	return nil
}

// NewReply makes a reply and panics when it is not a legal one, so it is for constants in code, not for peers' words.
func NewReply(code int, enhanced, text string) Reply {
	r := Reply{Code: code, Text: text}
	if enhanced != "" {
		e, err := ParseEnhanced(enhanced)
		if err != nil {
			panic(err)
		}
		r.Enhanced = e
	}
	if err := r.Check(); err != nil {
		panic(err)
	}
	return r
}

// ParseEnhanced reads "5.7.1" (RFC 3463, 2). The parser is total: anything else is an error.
func ParseEnhanced(s string) (EnhancedCode, error) {
	var e EnhancedCode
	class, rest, _ := strings.Cut(s, ".")
	subject, detail, ok := strings.Cut(rest, ".")
	for i, p := range [...]string{class, subject, detail} {
		n, good := digits(p)
		e[i], ok = n, ok && good
	}
	if !ok {
		return EnhancedCode{}, fmt.Errorf("%q is not an enhanced status code (such as 5.7.1)", s)
	}
	if e[0] != 2 && e[0] != 4 && e[0] != 5 {
		return EnhancedCode{}, fmt.Errorf("%q: the first digit of an enhanced status code is 2, 4 or 5", s)
	}
	return e, nil
}

// digits reads one to three of them.
func digits(s string) (n int, ok bool) {
	if s == "" || len(s) > 3 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
