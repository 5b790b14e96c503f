package smtpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Result is the answer for one recipient.
type Result struct {
	Phase string
	Reply mail.Reply // zero: the peer did not answer for this recipient
	Ours  bool       // it is our own word: the peer can't take the message, or we can't send it
}

// maxGroup bounds the commands of one flight, so that the replies that nobody reads yet fit into any peer's buffers
// (RFC 2920, 3.1).
const maxGroup = 100

// Transaction is one message for a peer.
type Transaction struct {
	*Conn
	ctx      context.Context
	env      *mail.Envelope
	content  mail.Content
	possible bool // the peer can be asked for it
	begun    bool // its commands went out behind the content of the one before
	body     *reader
	last     bool // the block in Conn.body is the last one
	utf8     bool // SMTPUTF8 is needed
	results  []Result
	waiting  []step // sent, or about to be, and not answered
	accepted []int  // recipients
	rejected mail.Reply
	data     mail.Reply // the answer to DATA
	goodbye  mail.Reply // a 421
	phase    string     // of the last answer
	answers  int
	next     func() *Transaction // see Send
}

// Transaction makes one, and sends nothing yet. Transactions of a connection are sent one after the other.
func (c *Conn) Transaction(env *mail.Envelope, content mail.Content) *Transaction {
	t := &Transaction{Conn: c, env: env, content: content, body: newReader(content, env.Body == mail.BodyBinary),
		results: make([]Result, len(env.To)), waiting: make([]step, 0, min(len(env.To)+3, maxGroup))}
	t.possible = t.findObstacles()
	return t
}

// Begun reports whether the commands went out behind the content of the one before.
func (t *Transaction) Begun() bool { return t.begun }

// Send does the transaction and returns one Result for each of its recipients, in their order. The error says why the
// connection failed on the way; results that were known by then stand.
//
// Next, if given, is called when the content is about to end and another transaction can be begun behind it in the same
// write (RFC 2920, 3.1). It returns that one, or nil. Send doesn't wait for what the peer says to it: it is to be sent as the
// next one of the connection, and goes on from there.
func (t *Transaction) Send(ctx context.Context, next func() *Transaction) ([]Result, error) {
	if !t.possible {
		return t.results, nil
	}
	t.ctx, t.next, t.started = ctx, next, false
	if t.broken || t.Conn.begun != nil && t.Conn.begun != t {
		return t.results, t.failed(PhaseMail, net.ErrClosed)
	}
	t.Conn.begun = nil
	defer t.watch(ctx)()
	ended := false
	defer func() { t.broken = t.broken || !ended }() // after a panic nobody knows how far it came
	err := t.run()
	ended = true
	if t.goodbye.Code != 0 {
		// Also right for a message whose final dot was not answered otherwise: 421 is temporary.
		t.all(Result{t.phase, t.goodbye, false})
		if err == nil {
			err = &Error{Phase: t.phase, Reply: t.goodbye, Unanswered: t.answers == 1}
		}
	}
	return t.results, err
}

type step struct {
	phase string
	rcpt  int
}

// findObstacles finds what this peer can't be asked for, before anything is sent. It reports whether a recipient is left.
func (t *Transaction) findObstacles() bool {
	if r := t.obstacle(); r.Code != 0 {
		t.all(Result{PhaseMail, r, true})
		return false
	}
	left := false
	for i, r := range t.env.To {
		switch {
		case r.Address.IsNull():
			t.results[i] = Result{PhaseRcpt, mail.NewReply(553, "5.1.3", "the recipient is empty"), true}
		case !r.Address.IsASCII() && !t.caps.UTF8:
			t.results[i] = Result{PhaseRcpt, noUTF8, true}
		default:
			left = true
		}
	}
	return left
}

var (
	noUTF8   = mail.NewReply(553, "5.6.7", "the next host does not take international addresses or headers (SMTPUTF8)")
	noEight  = mail.NewReply(554, "5.6.3", "the next host does not take 8-bit content (8BITMIME)")
	noBinary = mail.NewReply(554, "5.6.3", "the next host does not take binary content (BINARYMIME)")
	noTLS    = mail.NewReply(550, "5.7.30", "REQUIRETLS is wanted, and the next host does not offer it")
)

// obstacle returns why this message can't go to this peer, or a zero reply.
func (t *Transaction) obstacle() mail.Reply {
	size := t.content.Size()
	t.utf8 = t.env.NeedsUTF8() || (t.env.SMTPUTF8 && hasWideHeader(t.content))
	switch {
	case (!t.env.From.IsASCII() || (t.utf8 && !t.env.NeedsUTF8())) && !t.caps.UTF8:
		return noUTF8
	case t.env.Body == mail.Body8Bit && !t.caps.EightBit:
		return noEight
	case t.env.Body == mail.BodyBinary && (!t.caps.Binary || !t.caps.Chunking):
		return noBinary
	case t.env.RequireTLS && (t.tls == nil || !t.caps.RequireTLS):
		return noTLS // RFC 8689, 4.2.1
	case t.caps.MaxSize > 0 && size > t.caps.MaxSize:
		return mail.NewReply(552, "5.3.4", fmt.Sprintf("the message has %d bytes; the next host takes %d", size, t.caps.MaxSize))
	}
	return mail.Reply{}
}

// hasWideHeader looks for characters beyond ASCII in the header: the reason for SMTPUTF8 that addresses don't show.
func hasWideHeader(content mail.Content) bool {
	raw, _, err := mail.RawHeader(content)
	if err != nil {
		return true
	}
	for _, c := range raw {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// ownReply turns trouble with the content into an answer. A bare CR or LF can't get better by waiting.
func ownReply(err error) mail.Reply {
	if err == errBareLine {
		return mail.NewReply(554, "5.6.0", errBareLine.Error())
	}
	return mail.NewReply(451, "4.3.0", "the message can't be read from the queue")
}

// all gives every recipient that has no answer yet this one.
func (t *Transaction) all(r Result) {
	for i := range t.results {
		if t.results[i].Reply.Code == 0 {
			t.results[i] = r
		}
	}
}

func (t *Transaction) run() error {
	// The first block is made ready before MAIL: a short message that can't be sent costs the peer nothing.
	switch err := t.nextBlock(); {
	case err != nil && t.begun:
		return t.breakOff(err)
	case err != nil:
		t.all(Result{PhaseData, ownReply(err), true})
		return nil
	}
	if !t.begun {
		if err := t.putEnvelope(); err != nil {
			return err
		}
	}
	if err := t.sync(); err != nil {
		return err
	}
	t.rset = true // until the transaction is seen to have ended
	switch {
	case t.goodbye.Code != 0:
		return nil
	case t.rejected.Code != 0 && t.begun:
		// It may be about the place and not about the message: some hosts refuse whatever comes behind one in the same write.
		t.broken = true
		return &Error{Phase: PhaseMail, Unanswered: true, Err: &NotBegunError{t.rejected}}
	case t.rejected.Code != 0:
		t.all(Result{PhaseMail, t.rejected, false})
		return t.abandon()
	case t.env.Body == mail.BodyBinary:
		if len(t.accepted) == 0 {
			return nil
		}
		return t.sendChunks()
	case t.data.Code >= 400:
		t.all(Result{PhaseData, t.data, false})
		return nil
	case len(t.accepted) == 0:
		return t.abandon()
	}
	return t.sendData()
}

// putEnvelope puts MAIL, RCPT and DATA. With PIPELINING they go out together; without it each waits for the one before
// (RFC 2920, 3.1: DATA is the last of its group).
func (t *Transaction) putEnvelope() error {
	if t.rset {
		t.rset = false
		t.out = append(t.out, "RSET\r\n"...)
		if err := t.put(step{"rset", -1}); err != nil {
			return err
		}
	}
	t.out = t.appendMail(t.out, t.env, t.content.Size(), t.utf8)
	if err := t.put(step{PhaseMail, -1}); err != nil {
		return err
	}
	for i, r := range t.env.To {
		if t.results[i].Reply.Code != 0 || t.over() {
			continue
		}
		t.out = t.appendRcpt(t.out, r)
		if err := t.put(step{PhaseRcpt, i}); err != nil {
			return err
		}
	}
	if t.env.Body != mail.BodyBinary && !t.over() && (len(t.accepted) > 0 || len(t.waiting) > 0) {
		t.out = append(t.out, "DATA\r\n"...)
		t.waiting = append(t.waiting, step{PhaseData, -1})
	}
	return nil
}

// over reports that no further command makes sense.
func (t *Transaction) over() bool { return t.rejected.Code != 0 || t.goodbye.Code != 0 }

// put adds a step whose command is in out, and waits for answers where it must.
func (t *Transaction) put(s step) error {
	t.waiting = append(t.waiting, s)
	if t.caps.Pipelining && len(t.waiting) < maxGroup {
		return nil
	}
	return t.sync()
}

// sync sends what is waiting and reads the answers.
func (t *Transaction) sync() error {
	if len(t.out) > 0 {
		if err := t.flush(t.ctx, t.waiting[0].phase); err != nil {
			return t.lastWords(err)
		}
	}
	for _, s := range t.waiting {
		if t.goodbye.Code != 0 {
			return nil // nothing more is to be waited for
		}
		wait := t.o.Timeouts.Command
		if s.phase == PhaseData {
			wait = t.o.Timeouts.Data
		}
		r, err := t.answer(s.phase, wait)
		if err != nil {
			return err
		}
		if err := t.take(s, r); err != nil {
			return err
		}
	}
	t.waiting = t.waiting[:0]
	return nil
}

// answer reads one reply and remembers a 421.
func (t *Transaction) answer(phase string, wait time.Duration) (mail.Reply, error) {
	r, err := t.read(t.ctx, phase, wait, nil)
	if err != nil {
		return r, err
	}
	t.phase = phase
	t.answers++
	if r.Code == 421 && t.goodbye.Code == 0 {
		t.goodbye = r
	}
	return r, nil
}

// take notes what a reply means.
func (t *Transaction) take(s step, r mail.Reply) error {
	fits := r.Positive() || r.Code >= 400
	if s.phase == PhaseData {
		fits = r.Code == 354 || r.Code >= 400
	}
	if !fits || (s.phase == "rset" && r.Code >= 400) {
		return t.senseless(s.phase, r)
	}
	switch s.phase {
	case PhaseMail:
		if r.Code >= 400 {
			t.rejected = r
		}
	case PhaseRcpt:
		switch {
		case t.rejected.Code != 0: // its refusal is a consequence
		case r.Code < 400:
			t.accepted = append(t.accepted, s.rcpt)
		default:
			t.results[s.rcpt] = Result{PhaseRcpt, tooMany(r, len(t.accepted)), false}
		}
	case PhaseData:
		t.data = r
	}
	return nil
}

// tooMany makes a 552 after accepted recipients a 452 (RFC 5321, 4.5.3.1.10).
func tooMany(r mail.Reply, accepted int) mail.Reply {
	if r.Code == 552 && accepted > 0 {
		r.Code, r.Enhanced[0] = 452, min(r.Enhanced[0], 4)
	}
	return r
}

// abandon ends a transaction that has no recipient. A peer that said 354 all the same waits for a message and gets an
// empty one (RFC 2920, 3.1).
func (t *Transaction) abandon() error {
	if t.data.Code != 354 {
		return nil
	}
	if t.o.LMTP { // RFC 2033, 4.2 forbids the 354, and nobody would answer to the dot
		t.broken = true
		return nil
	}
	if err := t.write(t.ctx, PhaseDot, []byte(".\r\n")); err != nil {
		return err
	}
	t.rset = false
	_, err := t.answer(PhaseDot, t.o.Timeouts.Dot)
	return err
}

// nextBlock makes the next block of content ready.
func (t *Transaction) nextBlock() error {
	b, err := t.body.next(t.Conn.body)
	if err != nil && err != io.EOF {
		return err
	}
	t.Conn.body, t.last = b, err == io.EOF
	return nil
}

// sendData sends the content and its final dot.
func (t *Transaction) sendData() error {
	for {
		if t.last {
			t.rset = false // the peer's answer ends the transaction, whatever it is
			t.beginNext()
		}
		if err := t.write(t.ctx, PhaseData, t.Conn.body); err != nil {
			return t.lastWords(err)
		}
		if t.last {
			sent := time.Now()
			err := t.finish()
			t.prompt = time.Since(sent) < t.o.Timeouts.Prompt
			return err
		}
		if err := t.nextBlock(); err != nil {
			return t.breakOff(err)
		}
	}
}

// beginNext adds the commands of the next transaction to the last block of this one, if they are one group.
func (t *Transaction) beginNext() {
	if t.next == nil || !t.caps.Pipelining || !t.prompt || t.body.raw {
		return
	}
	n := t.next()
	if n == nil || !n.possible || len(n.env.To)+2 > maxGroup {
		return
	}
	n.begun = n.putEnvelope() == nil
	t.Conn.begun = n
	t.Conn.body = append(t.Conn.body, t.out...)
	t.out = t.out[:0]
}

// sendChunks sends the content as it is (RFC 3030). A chunk goes out only after the peer has accepted a recipient: some
// servers run a chunk that they did not expect as commands.
func (t *Transaction) sendChunks() error {
	head := strconv.AppendInt([]byte("BDAT "), t.content.Size(), 10)
	if err := t.write(t.ctx, PhaseData, append(head, " LAST\r\n"...)); err != nil {
		return t.lastWords(err)
	}
	return t.sendData()
}

// breakOff drops the connection before the final dot, so that the peer throws away what it has got.
func (t *Transaction) breakOff(err error) error {
	t.all(Result{PhaseData, ownReply(err), true})
	return t.failed(PhaseData, err)
}

// finish reads the answer to the message: one, or with LMTP one for each recipient (RFC 2033, 4.2).
func (t *Transaction) finish() error {
	var r mail.Reply
	for i, rcpt := range t.accepted {
		if t.goodbye.Code != 0 && t.o.LMTP {
			return nil
		}
		if i == 0 || t.o.LMTP {
			var err error
			if r, err = t.answer(PhaseDot, t.o.Timeouts.Dot); err != nil {
				return err
			}
			if !r.Positive() && r.Code < 400 {
				return t.senseless(PhaseDot, r)
			}
		}
		t.results[rcpt] = Result{PhaseDot, r, false}
	}
	return nil
}

// lastWords looks for what a peer said before it closed on us: "552 too big" tells more than a broken pipe. Before the
// content only a temporary answer is believed, for it may not be meant for what we were saying.
func (t *Transaction) lastWords(cause error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.ctx), t.o.Timeouts.Quit)
	defer stop()
	var e *Error
	if !errors.As(cause, &e) || t.arm(ctx, t.o.Timeouts.Quit) != nil {
		return cause
	}
	r, err := readReply(t.r, nil)
	if err != nil || r.Code < 400 || (e.Phase != PhaseData && r.Permanent()) {
		return cause
	}
	t.all(Result{e.Phase, r, false})
	return &Error{Phase: e.Phase, Reply: r, Unanswered: e.Unanswered, Err: e.Err}
}
