package box

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Folder names are kept in modified UTF-7 (RFC 3501, 5.1.3), as Maildir++ programs do.

var utf7Letters = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

func encodeUTF7(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '&' })
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		if s[0] == '&' {
			b.WriteString("&-")
			s = s[1:]
			continue
		}
		n := strings.IndexFunc(s, func(r rune) bool { return r >= ' ' && r <= '~' })
		if n < 0 {
			n = len(s)
		}
		var bytes []byte
		for _, u := range utf16.Encode([]rune(s[:n])) {
			bytes = append(bytes, byte(u>>8), byte(u))
		}
		b.WriteString("&" + utf7Letters.EncodeToString(bytes) + "-")
		s = s[n:]
	}
	return b.String()
}

// decodeUTF7 returns a name; ok is false for what is not what encodeUTF7 makes of it.
func decodeUTF7(s string) (name string, ok bool) {
	var b strings.Builder
	for rest := s; rest != ""; {
		plain, shifted, found := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !found {
			break
		}
		code, after, closed := strings.Cut(shifted, "-")
		if !closed {
			return "", false
		}
		rest = after
		if code == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := utf7Letters.DecodeString(code)
		if err != nil || len(raw)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	name = b.String()
	return name, utf8.ValidString(name) && encodeUTF7(name) == s
}
