package mail

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EncodeXtext writes text as a parameter of MAIL or RCPT can hold it (RFC 3461, 4): each octet but the visible ones of
// US-ASCII, and + and =, as + and two hexadecimal digits.
func EncodeXtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if isXchar(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// DecodeXtext reads what EncodeXtext wrote. Text that decodes to a control character or to something else than UTF-8 is
// refused, because it is going to stand in a line of a report or of a log.
func DecodeXtext(s string) (string, error) {
	b, err := decodeXtext(s)
	if err != nil {
		return "", err
	}
	return b, checkParameter("parameter", b, maxOriginal)
}

func decodeXtext(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			n, err := hexAt(s, i+1)
			if err != nil {
				return "", err
			}
			b.WriteByte(n)
			i += 2
		case isXchar(c):
			b.WriteByte(c)
		default:
			return "", fmt.Errorf("%s is not xtext: %q has to be written as +%02X", quoteShort(s), c, c)
		}
	}
	return b.String(), nil
}

// hexAt reads two hexadecimal digits. RFC 3461 has capitals only; small ones are met and mean the same.
func hexAt(s string, i int) (byte, error) {
	if i+2 <= len(s) && isHex(s[i]) && isHex(s[i+1]) {
		n, err := strconv.ParseUint(s[i:i+2], 16, 8)
		return byte(n), err
	}
	return 0, fmt.Errorf("%s is not xtext: two hexadecimal digits follow a +", quoteShort(s))
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f' }

func isXchar(c byte) bool { return c > ' ' && c < 0x7f && c != '+' && c != '=' }

func isAtom(s string) bool {
	for _, c := range []byte(s) {
		if !isAtext(c) || c >= utf8.RuneSelf {
			return false
		}
	}
	return s != ""
}

// EncodeORCPT writes a Recipient.Original as the value of the ORCPT parameter, in US-ASCII whatever it holds: xtext, or
// for the address type utf-8 the utf-8-addr-xtext of RFC 6533, 3.
func EncodeORCPT(original string) string {
	kind, text, _ := strings.Cut(original, ";")
	if !strings.EqualFold(kind, "utf-8") {
		return kind + ";" + EncodeXtext(text)
	}
	var b strings.Builder
	for _, c := range text {
		if c < utf8.RuneSelf && isXchar(byte(c)) && c != '\\' {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, c)
		}
	}
	return kind + ";" + b.String()
}

// DecodeORCPT reads the value of an ORCPT parameter (RFC 3461, 4.2) as Recipient.Original keeps it. For the address type
// utf-8 it takes both forms of RFC 6533, 3, with \x{..} for the characters that it can't hold, and xtext too, which is met
// where a relay knew no better.
func DecodeORCPT(param string) (string, error) {
	kind, coded, ok := strings.Cut(param, ";")
	if !ok || !isAtom(kind) || coded == "" {
		return "", fmt.Errorf("%s is not an address type, a semicolon and an address", quoteShort(param))
	}
	decode := decodeXtext
	if strings.EqualFold(kind, "utf-8") {
		decode = decodeUTF8Addr
	}
	text, err := decode(coded)
	if err != nil {
		return "", err
	}
	original := kind + ";" + text
	return original, checkParameter("original recipient", original, maxOriginal)
}

func decodeUTF8Addr(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			r, n, err := embeddedChar(s[i:])
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
			i += n - 1
		case c == '+':
			n, err := hexAt(s, i+1)
			if err != nil {
				return "", err
			}
			b.WriteByte(n)
			i += 2
		case isXchar(c) || c >= utf8.RuneSelf:
			b.WriteByte(c)
		default:
			return "", fmt.Errorf(`%s is not an address of type utf-8: %q has to be written as \x{%02X}`, quoteShort(s), c, c)
		}
	}
	return b.String(), nil
}

// embeddedChar reads the EmbeddedUnicodeChar of RFC 6533, 3 at the start of s and returns its length.
func embeddedChar(s string) (r rune, n int, err error) {
	bad := errors.New(`after a backslash x{ and two to six hexadecimal digits of a character and } are wanted`)
	digits, _, ok := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
	if !ok || !strings.HasPrefix(s, `\x{`) || len(digits) < 2 || len(digits) > 6 {
		return 0, 0, bad
	}
	u, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || !utf8.ValidRune(rune(u)) {
		return 0, 0, bad
	}
	return rune(u), len(`\x{}`) + len(digits), nil
}
