package mime

import (
	"bytes"
	"encoding/base64"
)

// encodedLine is the longest line of an encoded body (RFC 2045, 6.7 and 6.8).
const encodedLine = 76

const hexDigits = "0123456789ABCDEF"

// needsQuoting counts the octets that quoted-printable must write as three.
func needsQuoting(b []byte) (n int) {
	for _, c := range b {
		if c >= 0x7f || c == '=' || c < ' ' && c != '\t' && c != '\r' && c != '\n' {
			n++
		}
	}
	return n
}

// appendQP appends b as quoted-printable: CRLF stays a line break, every other CR or LF is written in digits, so that the
// octets come back as they were. Where nothing follows, a last line without CRLF is ended by a soft break.
func appendQP(out, b []byte, final bool) []byte {
	for len(b) > 0 {
		line, rest, broken := bytes.Cut(b, []byte("\r\n"))
		out = appendQPLine(out, line)
		switch {
		case broken:
			out = append(out, "\r\n"...)
		case final:
			out = append(out, "=\r\n"...)
		}
		b = rest
	}
	return out
}

func appendQPLine(out, line []byte) []byte {
	start, soft := len(out), false
	for i, c := range line {
		plain := c > ' ' && c < 0x7f && c != '=' || isSpace(c) && i < len(line)-1
		width := 1
		if !plain {
			width = 3
		}
		if len(out)-start+width > encodedLine-1 {
			out = append(out, "=\r\n"...)
			start, soft = len(out), true
		}
		// After a soft break a line begins where none was: it must not begin like a delimiter.
		if plain && (c != '-' || !soft || len(out) > start) {
			out = append(out, c)
		} else {
			out = append(out, '=', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return out
}

// appendBase64 returns b in lines of base64. The CRLF after the last is that of the delimiter, unless nothing follows.
func appendBase64(b []byte, final bool) []byte {
	const perLine = encodedLine / 4 * 3
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))/encodedLine*(encodedLine+2)+encodedLine+2)
	for len(b) > 0 {
		n := min(perLine, len(b))
		out = base64.StdEncoding.AppendEncode(out, b[:n])
		if b = b[n:]; len(b) > 0 || final {
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// wrapBase64 returns the same base64 in lines of the right length, without the octets that decoders skip.
func wrapBase64(b []byte, final bool) []byte {
	out, col := make([]byte, 0, len(b)+len(b)/encodedLine*2+2), 0
	for _, c := range b {
		if !isBase64(c) && c != '=' {
			continue
		}
		if col == encodedLine {
			out, col = append(out, "\r\n"...), 0
		}
		out = append(out, c)
		col++
	}
	if final && len(out) > 0 {
		out = append(out, "\r\n"...)
	}
	return out
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

// decodeBase64 takes what is exactly right, in lines or in one.
func decodeBase64(b []byte) ([]byte, bool) {
	packed := make([]byte, 0, len(b))
	for line := range bytes.SplitSeq(b, []byte("\r\n")) {
		packed = append(packed, line...)
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(packed)))
	if bytes.ContainsAny(packed, "\r\n") { // which the decoder would skip
		return nil, false
	}
	n, err := base64.StdEncoding.Strict().Decode(out, packed)
	return out[:n], err == nil
}

// decodeQP takes what is exactly right (RFC 2045, 6.7).
func decodeQP(b []byte) ([]byte, bool) { return readQP(b, true) }

// repairQP reads quoted-printable as mail programs do: what is not right stands for itself.
func repairQP(b []byte) []byte {
	out, _ := readQP(b, false)
	return out
}

func readQP(b []byte, strict bool) (out []byte, ok bool) {
	out = make([]byte, 0, len(b))
	for len(b) > 0 {
		line, rest, broken := bytes.Cut(b, []byte("\r\n"))
		kept := bytes.TrimRight(line, " \t") // added on the way (RFC 2045, 6.7, rule 3)
		if strict && len(kept) != len(line) {
			return nil, false
		}
		soft := bytes.HasSuffix(kept, []byte("="))
		if soft {
			kept = kept[:len(kept)-1]
		}
		if out, ok = appendUnquoted(out, kept, strict); !ok {
			return nil, false
		}
		if broken && !soft {
			out = append(out, "\r\n"...)
		}
		b = rest
	}
	return out, true
}

func appendUnquoted(out, line []byte, strict bool) ([]byte, bool) {
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c == '=' {
			if v, ok := hexByte(line[i+1:]); ok {
				out = append(out, v)
				i += 2
				continue
			}
		}
		if strict && (c == '=' || c > '~' || c < ' ' && c != '\t') {
			return nil, false
		}
		out = append(out, c)
	}
	return out, true
}

func hexByte(b []byte) (byte, bool) {
	if len(b) < 2 {
		return 0, false
	}
	hi, lo := bytes.IndexByte([]byte(hexDigits), upper(b[0])), bytes.IndexByte([]byte(hexDigits), upper(b[1]))
	return byte(hi<<4 | lo&15), hi >= 0 && lo >= 0
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}
