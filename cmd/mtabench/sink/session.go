package sink

import (
	"bufio"
	"bytes"
	"hash/crc32"
	"net"
	"strconv"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
)

// The headers that a message of the generator carries. The checksum is the CRC-32C of the body, that is of all after the
// empty line, with its line ends and without the dots that SMTP adds.
const (
	HeaderID  = "X-Bench-Id: " // RUN-NUMBER
	HeaderCRC = "X-Bench-Crc: "
)

// Castagnoli is the table of the checksum.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// session is one connection.
type session struct {
	sink       *Sink
	r          *bufio.Reader
	w          *bufio.Writer
	recipients uint64
}

func newSession(s *Sink, c net.Conn) *session {
	return &session{sink: s, r: bufio.NewReaderSize(c, 32<<10), w: bufio.NewWriterSize(c, 4<<10)}
}

const greeting = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n"

func (s *session) serve() {
	for more := s.reply("220 sink.test ESMTP\r\n"); more; {
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return
		}
		more = s.command(line)
	}
}

// command obeys one line. It returns false at the end of the session.
func (s *session) command(line []byte) bool {
	switch {
	case begins(line, "EHLO"):
		return s.reply(greeting)
	case begins(line, "HELO"):
		return s.reply("250 sink.test\r\n")
	case begins(line, "MAIL"), begins(line, "RSET"):
		s.recipients = 0
		return s.reply("250 2.1.0 ok\r\n")
	case begins(line, "RCPT"):
		s.recipients |= recipient(line)
		return s.reply("250 2.1.5 ok\r\n")
	case begins(line, "DATA"):
		return s.data()
	case begins(line, "NOOP"):
		return s.reply("250 2.0.0 ok\r\n")
	case begins(line, "QUIT"):
		_ = s.reply("221 2.0.0 bye\r\n") && s.w.Flush() == nil // the end either way
		return false
	default:
		return s.reply("502 5.5.1 no such command\r\n")
	}
}

// reply answers. While further commands are waiting the answers are gathered.
func (s *session) reply(text string) bool {
	if _, err := s.w.WriteString(text); err != nil {
		return false
	}
	return s.r.Buffered() > 0 || s.w.Flush() == nil
}

func (s *session) data() bool {
	if !s.reply("354 go on\r\n") || s.w.Flush() != nil {
		return false
	}
	// One ledger for the whole message: what belongs to the run before must not be booked on the next one.
	l := s.sink.ledger.Load()
	m, err := readMessage(s.r)
	if err != nil {
		return false
	}
	if l != nil {
		m.Recipients = s.recipients
		l.Arrive(m)
	}
	s.recipients = 0
	return s.reply("250 2.0.0 ok\r\n")
}

// recipient is the bit of <rNUMBER@...>; none for another local part.
func recipient(line []byte) uint64 {
	_, rest, _ := bytes.Cut(line, []byte("<"))
	local, _, ok := bytes.Cut(rest, []byte("@"))
	if !ok || len(local) < 2 || local[0] != 'r' {
		return 0
	}
	n, err := strconv.Atoi(string(local[1:]))
	if err != nil || n < 0 || n >= ledger.MaxRecipients {
		return 0
	}
	return 1 << n
}

// readMessage reads up to the final dot, and keeps the number, and whether the checksum is right.
func readMessage(r *bufio.Reader) (ledger.Arrival, error) {
	m := ledger.Arrival{ID: -1}
	var told, sum uint32
	var hasSum, inBody bool
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return m, err // a line longer than the buffer as well: the generator makes none
		}
		if line[0] == '.' {
			if string(line) == ".\r\n" {
				m.Intact = hasSum && told == sum
				return m, nil
			}
			line = line[1:]
		}
		switch {
		case inBody:
			sum = crc32.Update(sum, Castagnoli, line)
		case string(line) == "\r\n":
			inBody = true
		case begins(line, HeaderID):
			m.Run, m.ID = number(value(line, HeaderID))
		case begins(line, HeaderCRC):
			n, err := strconv.ParseUint(value(line, HeaderCRC), 16, 32)
			told, hasSum = uint32(n), err == nil
		}
	}
}

// number takes RUN-NUMBER apart; the number is -1 when it is none.
func number(id string) (run string, n int) {
	i := max(0, bytes.LastIndexByte([]byte(id), '-'))
	n, err := strconv.Atoi(id[min(len(id), i+1):])
	if err != nil {
		return "", -1
	}
	return id[:i], n
}

func value(line []byte, header string) string { return string(bytes.TrimSpace(line[len(header):])) }

func begins(line []byte, word string) bool {
	return len(line) >= len(word) && bytes.EqualFold(line[:len(word)], []byte(word))
}
