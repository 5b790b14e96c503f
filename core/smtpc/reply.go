package smtpc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

const (
	maxReply     = 100_000 // bytes of one reply that are read, as Postfix has it; a peer that says more is hostile
	maxReplyText = 1900    // bytes of it that are kept, inside of what mail.Reply takes
)

// errEndless says that a reply did not stop.
var errEndless = errors.New("the peer's reply is longer than 100000 bytes")

// readReply reads one reply (RFC 5321, 4.2). It is total: what it returns is a legal mail.Reply or an error. Each, if
// given, sees the text of every line as it came. The reader's deadline is the caller's business.
func readReply(r *bufio.Reader, each func(text []byte)) (mail.Reply, error) {
	var p replyText
	code := 0
	for left := maxReply; ; {
		line, n, err := readLine(r, left)
		if err != nil {
			if err == io.EOF && code != 0 {
				err = io.ErrUnexpectedEOF
			}
			return mail.Reply{}, err
		}
		left -= n
		lineCode, last, err := parseLine(line)
		if err != nil {
			return mail.Reply{}, err
		}
		if code != 0 && lineCode != code {
			// RFC 5321, 4.2.1: the code is the same on every line. Which one counts is not for us to guess.
			return mail.Reply{}, fmt.Errorf("the peer's reply has the code %d on one line and %d on another", code, lineCode)
		}
		code = lineCode
		text := line[min(4, len(line)):]
		if each != nil {
			each(text)
		}
		p.add(code, text)
		if last {
			return mail.Reply{Code: code, Enhanced: p.enhanced, Text: p.String()}, nil
		}
	}
}

// readLine returns the next line without its end, and how much was read. A line that is longer than the reader's buffer
// is cut. The line is good until the next read.
func readLine(r *bufio.Reader, limit int) (line []byte, n int, err error) {
	line, err = r.ReadSlice('\n')
	n = len(line)
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line)
	}
	for err == bufio.ErrBufferFull && n <= limit {
		var more []byte
		more, err = r.ReadSlice('\n')
		n += len(more)
	}
	switch {
	case n > limit:
		return nil, n, errEndless
	case err == io.EOF && n > 0:
		return nil, n, io.ErrUnexpectedEOF
	case err != nil:
		return nil, n, err
	}
	return bytes.TrimRight(line, "\r\n"), n, nil
}

// parseLine reads the code of a line and whether it is the last one of its reply.
func parseLine(line []byte) (code int, last bool, err error) {
	if len(line) >= 3 && line[0] >= '2' && line[0] <= '5' && isDigit(line[1]) && isDigit(line[2]) {
		code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
		switch {
		case len(line) == 3 || line[3] == ' ' || line[3] == '\t':
			return code, true, nil
		case line[3] == '-':
			return code, false, nil
		}
	}
	return 0, false, fmt.Errorf("the peer does not speak SMTP: it said %q", clean(line[:min(len(line), 80)]))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// replyText gathers the text of a reply.
type replyText struct {
	first    string
	more     []string
	size     int
	lines    int
	enhanced mail.EnhancedCode
}

func (p *replyText) add(code int, text []byte) {
	p.lines++
	if e, rest, ok := cutEnhanced(code, text); ok && (p.lines == 1 || e == p.enhanced) {
		p.enhanced, text = e, rest
	}
	room := maxReplyText - p.size
	if room <= 0 {
		return
	}
	s := clean(text[:min(len(text), room)])
	if len(s) > room {
		s = strings.ToValidUTF8(s[:room], "")
	}
	p.size += len(s) + 1
	if p.lines == 1 {
		p.first = s
	} else {
		p.more = append(p.more, s)
	}
}

// String returns the lines parted by "\n".
func (p *replyText) String() string {
	if len(p.more) == 0 {
		return p.first
	}
	return strings.TrimRight(p.first+"\n"+strings.Join(p.more, "\n"), "\n")
}

// cutEnhanced takes a status code (RFC 2034, 4) off the start of a line, if it is of the reply's class.
func cutEnhanced(code int, text []byte) (e mail.EnhancedCode, rest []byte, ok bool) {
	word, rest, _ := bytes.Cut(text, []byte(" "))
	if len(word) < 5 || len(word) > 9 || int(word[0]-'0') != code/100 {
		return e, text, false
	}
	e, err := mail.ParseEnhanced(string(word))
	return e, bytes.TrimLeft(rest, " "), err == nil
}

// clean makes text of a peer fit to be shown: UTF-8 without controls, on one line.
func clean(b []byte) string {
	b = bytes.TrimRight(b, " \t\r\n")
	plain := true
	for _, c := range b {
		plain = plain && c >= ' ' && c < 0x7f
	}
	if plain {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		b = b[n:]
		switch {
		case r == utf8.RuneError && n == 1:
			s.WriteRune(utf8.RuneError)
		case r < ' ', r >= 0x7f && r < 0xa0, r == '\u2028', r == '\u2029':
			s.WriteByte(' ')
		default:
			s.WriteRune(r)
		}
	}
	return s.String()
}
