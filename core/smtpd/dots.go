package smtpd

import "bytes"

// sink takes the content of a body in pieces. A piece never ends between the CR and the LF of a CRLF. crlf says how many
// line ends are in it, and bareLF how many LF without a CR before them.
type sink interface {
	add(piece []byte, crlf, bareLF int)
}

// dots reads what follows DATA (RFC 5321, 4.1.1.4 and 4.5.2). A line is what CRLF ends, and nothing else ends one. The
// line "." ends the body; of any other line that begins with a dot, that dot is taken off.
type dots struct {
	sink sink
	mid  bool // inside a line
}

// feed takes octets as they came. It returns how many of them it has used, and whether the body's end was among them.
// What it leaves, two octets at most, could be part of a CRLF or of the last line: it comes again with more behind it.
func (d *dots) feed(src []byte) (used int, end bool) {
	run, at, crlf, bareLF := 0, 0, 0, 0 // src[run:at] is not yet given on
	give := func(to int) {
		if to > run {
			d.sink.add(src[run:to], crlf, bareLF)
		}
		run, crlf, bareLF = to, 0, 0
	}
	for at < len(src) {
		if !d.mid && src[at] == '.' {
			rest := src[at:min(at+3, len(src))]
			if string(rest) == ".\r\n" {
				give(at)
				return at + 3, true
			}
			if len(rest) < 3 && string(rest) == ".\r\n"[:len(rest)] {
				break
			}
			give(at)
			at++
			run, d.mid = at, true
			continue
		}
		i := bytes.IndexByte(src[at:], '\n')
		if i < 0 {
			rest := len(src)
			if src[rest-1] == '\r' {
				rest--
			}
			d.mid = d.mid || rest > at
			at = rest
			break
		}
		at += i + 1
		if d.mid = at-2 < run || src[at-2] != '\r'; d.mid {
			bareLF++
		} else {
			crlf++
		}
	}
	give(at)
	return at, false
}

// countLines does for a piece that came by BDAT what dots does on its way.
func countLines(p []byte) (crlf, bareLF int) {
	for at := 0; ; {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return crlf, bareLF
		}
		at += i + 1
		if at >= 2 && p[at-2] == '\r' {
			crlf++
		} else {
			bareLF++
		}
	}
}

// normalized gives every line the end that it should have had: LF becomes CRLF, and a CR that no LF follows a space.
func normalized(p []byte) []byte {
	out := make([]byte, 0, len(p)+len(p)/32+16)
	for i, c := range p {
		switch {
		case c == '\n' && (i == 0 || p[i-1] != '\r'):
			out = append(out, '\r', '\n')
		case c == '\r' && (i+1 == len(p) || p[i+1] != '\n'):
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return out
}
