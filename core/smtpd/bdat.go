package smtpd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// What the desk gives go-smtp to read in place of what the client said.
const (
	dataLine  = "DATA\r\n"
	resetLine = "RSET\r\n"
	endOfData = ".\r\n"
)

// maxSkip is how many octets more than a message may have are read of one that is refused already, so that a client
// that does not listen comes to its end; then the connection is closed.
const maxSkip = 16 << 20

// hurryUp is how long a client may still take with a body that was found hostile.
const hurryUp = 10 * time.Second

// readDots reads a body by the rules of DATA into b. It returns nil only when the body's end has been seen.
func (e *edge) readDots(b *body) error {
	e.widen()
	defer e.narrow()
	d := dots{sink: b}
	p := e.newPace()
	for {
		used, end := d.feed(e.in[e.from:e.to])
		e.from += used
		if end {
			return nil
		}
		if b.size > b.max+maxSkip {
			return errEndless
		}
		if b.hostile {
			p.hurry(hurryUp)
		}
		if err := e.fill(p); err != nil {
			return err
		}
	}
}

// readChunk reads a chunk of so many octets into b.
func (e *edge) readChunk(size int64, b *body, p *pace) error {
	e.widen()
	defer e.narrow()
	if now := time.Now(); now.After(p.deadline(now)) {
		return os.ErrDeadlineExceeded
	}
	for size > 0 {
		if e.from == e.to {
			if b.hostile {
				p.hurry(hurryUp)
			}
			if err := e.fill(p); err != nil {
				return err
			}
		}
		n := min(size, int64(e.to-e.from))
		b.addChunk(e.in[e.from : e.from+int(n)])
		e.from += int(n)
		size -= n
	}
	return nil
}

// bdatLine takes BDAT (RFC 3030, 2). go-smtp does not see it: the last chunk is shown to it as DATA, whose body has been
// read already. Where the chunk ends is all that tells the next command from content, so it is read whatever the answer
// is; and when its size is not to be believed the connection ends.
func (d *desk) bdatLine(arg string, _ []byte) []byte {
	size, last, err := parseBDAT(arg)
	if err != nil {
		d.hangUp("malformed BDAT")
		return d.tell(mail.NewReply(501, "5.5.4", "BDAT, a size and perhaps LAST is wanted"))
	}
	if size > d.server.cfg.Limits.MessageSize+maxSkip {
		d.hangUp("BDAT too big")
		return d.tell(mail.NewReply(552, "5.3.4", "message too big"))
	}
	order := rule{needs: greeted | inMail | hasRcpt}
	complaint := order.outOfOrder(d.state())
	b := d.chunkBody(complaint != nil)
	if b.size+size > b.max && b.refusal == nil {
		b.refuse(552, "5.3.4", "message too big") // the chunk need not be kept to know that
	}
	if err := d.edge.readChunk(size, b, d.tx.pace); err != nil {
		return d.tell(d.broken(b, err))
	}
	switch {
	case complaint != nil:
		d.tx.body, d.tx.pace = nil, nil
		return d.tell(*complaint)
	case last:
		b.endChunks()
		d.edge.mute = true
		return []byte(dataLine)
	case b.refusal != nil:
		d.edge.say(*b.refusal)
		if b.hostile {
			d.hangUp(b.refusal.Text)
			return nil
		}
		d.edge.mute = true
		return []byte(resetLine)
	case size < 1024 && !d.allowJunk(): // a few octets at a time, for ever
		return nil
	}
	return d.tell(mail.NewReply(250, "2.0.0", strconv.FormatInt(size, 10)+" octets received"))
}

// chunkBody is where a chunk goes to: the message's body, or one that only counts when the chunk is not wanted.
func (d *desk) chunkBody(unwanted bool) *body {
	if d.tx.pace == nil {
		d.tx.pace = d.edge.newPace()
	}
	if unwanted {
		b := d.server.newBody(0)
		b.refuse(503, "5.5.1", "no transaction")
		return b
	}
	if d.tx.body == nil {
		d.tx.body = d.server.newBody(d.tx.promise)
	}
	return d.tx.body
}

var errBDAT = errors.New("malformed BDAT")

func parseBDAT(arg string) (size int64, last bool, err error) {
	words := strings.Fields(arg)
	if len(words) < 1 || len(words) > 2 {
		return 0, false, errBDAT
	}
	if len(words) == 2 && !strings.EqualFold(words[1], "LAST") {
		return 0, false, errBDAT
	}
	for _, c := range []byte(words[0]) {
		if c < '0' || c > '9' {
			return 0, false, errBDAT
		}
	}
	size, err = strconv.ParseInt(words[0], 10, 64)
	return size, len(words) == 2, err
}
