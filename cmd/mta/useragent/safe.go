package useragent

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// SafeText makes text of strangers fit for a terminal: lines and tabs stay, everything that could move the cursor, change
// colours or titles, or turn the direction of writing is shown as an escape or left out.
func SafeText(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return safe(s, true)
}

// SafeLine is SafeText for one line: line ends and tabs are spaces.
func SafeLine(s string) string { return safe(s, false) }

func safe(s string, lines bool) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, c := range s {
		switch {
		case c == '\n' || c == '\t':
			if !lines {
				c = ' '
			}
			b.WriteRune(c)
		case c == '\r' && !lines:
			b.WriteByte(' ')
		case isInvisible(c):
		case c == '\u2028' || c == '\u2029':
			b.WriteByte(' ')
		case isHostile(c):
			writeEscape(&b, c)
		default:
			b.WriteRune(c) // what is not UTF-8 has become U+FFFD here
		}
	}
	return b.String()
}

// isInvisible tells marks that show nothing and can make two different texts look alike.
func isInvisible(c rune) bool {
	return c == '\u200e' || c == '\u200f' || c == '\u061c' || c == '\ufeff' || c >= 0xe0000 && c <= 0xe007f
}

// isHostile tells C0, DEL, C1, line separators, and the characters that turn the direction of writing.
func isHostile(c rune) bool {
	return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

func writeEscape(b *strings.Builder, c rune) {
	if c < 0x100 {
		fmt.Fprintf(b, `\x%02x`, c)
		return
	}
	fmt.Fprintf(b, `\u%04x`, c)
}

// SafeJSON writes the characters that SafeText escapes as \u escapes of JSON: the data is the same, and a terminal does
// not obey it.
func SafeJSON(doc []byte) []byte {
	var b bytes.Buffer
	for len(doc) > 0 {
		c, n := utf8.DecodeRune(doc)
		if c != '\n' && (isHostile(c) || isInvisible(c)) {
			for _, unit := range utf16Units(c) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		} else {
			b.Write(doc[:n])
		}
		doc = doc[n:]
	}
	return b.Bytes()
}

func utf16Units(c rune) []rune {
	if c < 0x10000 {
		return []rune{c}
	}
	c -= 0x10000
	return []rune{0xd800 + c>>10, 0xdc00 + c&0x3ff}
}

// maxFileName leaves room below the 255 octets of a file system for the number of a second file of that name.
const maxFileName = 200

// FileName makes the name that a stranger gave to an attachment fit for our disk: its last element only, no leading dots
// or dashes, nothing that a shell, a terminal or a file system reads as something else. It returns "" when nothing is left.
func FileName(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, `\`, "/"), "_")
	s = strings.TrimPrefix(path.Base("/"+s), "/")
	s = strings.Map(func(c rune) rune {
		switch {
		case isInvisible(c):
			return -1
		case isHostile(c) || strings.ContainsRune(`/:*?"<>|`, c):
			return '_'
		case unicode.IsSpace(c):
			return ' '
		}
		return c
	}, s)
	s = strings.TrimLeft(s, ".- ")
	s = strings.TrimRight(shortName(s), ". ")
	if isReserved(s) {
		s = "_" + s
	}
	return s
}

// shortName cuts a name that is too long, and keeps its extension.
func shortName(s string) string {
	if len(s) <= maxFileName {
		return s
	}
	ext := path.Ext(s)
	if len(ext) > 20 {
		ext = ""
	}
	stem := s[:maxFileName-len(ext)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + ext
}

// isReserved tells the names that mean a device on some systems, with any extension.
func isReserved(s string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(s), ".")
	stem = strings.TrimSpace(stem)
	switch stem {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(stem) == 4 && (stem[:3] == "COM" || stem[:3] == "LPT") && stem[3] >= '0' && stem[3] <= '9'
}

// Width returns how many columns of a terminal a safe text takes.
func Width(s string) int {
	n := 0
	for _, c := range s {
		n += runeWidth(c)
	}
	return n
}

func runeWidth(c rune) int {
	if unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(c).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Column cuts or fills a text to n columns.
func Column(s string, n int) string {
	s = SafeLine(s)
	if w := Width(s); w <= n {
		return s + strings.Repeat(" ", n-w)
	}
	used := 0
	for i, c := range s {
		if used+runeWidth(c) > n-1 {
			return s[:i] + "…" + strings.Repeat(" ", n-1-used)
		}
		used += runeWidth(c)
	}
	return s
}
