package load

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/sink"
)

// letter is what the messages of a run have in common.
type letter struct {
	sender, recipient string // addresses, for the header
	filler            []byte // of the body, with its checksum's part
	stuffed           []byte // the same as it goes over the wire (RFC 5321, 4.5.2)
}

func newLetter(sender, recipient string, size int) *letter {
	f := filler(size)
	return &letter{sender: sender, recipient: recipient, filler: f, stuffed: stuff(f)}
}

// append writes the message with this number, with the final dot, as it goes over the wire.
func (l *letter) append(to []byte, run string, id int) []byte {
	first := fmt.Appendf(nil, "message %s-%d\r\n", run, id)
	sum := crc32.Update(crc32.Update(0, sink.Castagnoli, first), sink.Castagnoli, l.filler)
	to = fmt.Appendf(to, "From: <%s>\r\nTo: <%s>\r\nSubject: bench %d\r\nDate: %s\r\nMessage-ID: <%s-%d@src.test>\r\n",
		l.sender, l.recipient, id, time.Now().Format(time.RFC1123Z), run, id)
	to = fmt.Appendf(to, "%s%s-%d\r\n%s%08x\r\n\r\n", sink.HeaderID, run, id, sink.HeaderCRC, sum)
	to = append(to, first...)
	to = append(to, l.stuffed...)
	return append(to, ".\r\n"...)
}

// filler makes n bytes of lines, some of which start with a dot. The last line is whole.
func filler(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		if i%17 == 3 {
			b.WriteString(".dotted ")
		}
		fmt.Fprintf(&b, "%06d the quick brown fox jumps over the lazy dog 0123456789 abcdef\r\n", i)
	}
	text := b.Bytes()[:n]
	if n < 4 {
		return bytes.Repeat([]byte("\r\n"), n/2)
	}
	copy(text[n-3:], "z\r\n")
	if c := text[n-4]; c == '\n' || c == '\r' {
		text[n-4] = 'y'
	}
	return text
}

func stuff(text []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(line)
	}
	return b.Bytes()
}
