package peer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
)

// Step is where in the dialogue a sink cuts the connection.
type Step uint8

// The steps, in the order of the dialogue. At each but the last two the sink has not taken the message.
const (
	Never       Step = iota
	AtGreeting       // before the 220
	AtHello          // instead of the reply to EHLO
	AtMail           // instead of the reply to MAIL
	AtRcpt           // instead of the reply to RCPT
	AtData           // instead of the 354
	InBody           // after the 354, within the body
	AtDot            // it has the final dot, throws the message away, and goes
	AfterTaking      // it has taken the message and goes without a word (RFC 1047)
	InReply          // it has taken the message and goes in the middle of its 250
	Steps
)

var stepNames = [...]string{"never", "greeting", "ehlo", "mail", "rcpt", "data", "body", "dot", "after taking", "reply"}

// String names the step.
func (s Step) String() string { return stepNames[s] }

// Sink is an SMTP server that takes everything and remembers what it took.
type Sink struct {
	Offers  string                         // ESMTP keywords, separated by spaces
	Refuse  func(to string) string         // the reply to RCPT instead of 250; "" or nil: 250
	Cut     func() Step                    // asked at each connection and each MAIL; nil: never
	Content func([]byte)                   // is shown every message, if it is not nil
	Taken   func(ledger.Arrival, []string) // is told of each message and its recipients before the reply to its dot; may be nil

	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	arrivals []*ledger.Arrival
	accepted int // connections
	cuts     [Steps]int
	open     map[net.Conn]struct{}
}

// Serve takes connections from the listener until Close.
func (k *Sink) Serve(l net.Listener) {
	k.listener, k.open = l, map[net.Conn]struct{}{}
	k.serving.Go(k.accept)
}

// Close ends the listener and all connections, and returns when nothing is served any more.
func (k *Sink) Close() {
	k.listener.Close()
	k.mu.Lock()
	for c := range k.open {
		c.Close()
	}
	k.mu.Unlock()
	k.serving.Wait()
}

// Open is how many connections there are now.
func (k *Sink) Open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)
}

// Arrivals returns what has come until now, and over how many connections.
func (k *Sink) Arrivals() ([]ledger.Arrival, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return values(k.arrivals), k.accepted
}

// Cuts returns how many connections were cut at each step.
func (k *Sink) Cuts() [Steps]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cuts
}

// Forget drops the arrivals and returns them.
func (k *Sink) Forget() []ledger.Arrival {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := values(k.arrivals)
	k.arrivals = nil
	return list
}

func values(list []*ledger.Arrival) (out []ledger.Arrival) {
	for _, a := range list {
		out = append(out, *a)
	}
	return out
}

func (k *Sink) accept() {
	for {
		c, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.mu.Lock()
		k.accepted++
		k.open[c] = struct{}{}
		k.mu.Unlock()
		k.serving.Go(func() {
			s := &session{sink: k, r: bufio.NewReaderSize(c, 64<<10), w: bufio.NewWriter(c)}
			cut := s.run()
			c.Close()
			k.mu.Lock()
			if cut {
				k.cuts[s.cut]++
			}
			delete(k.open, c)
			k.mu.Unlock()
		})
	}
}

func (k *Sink) cut() Step {
	if k.Cut == nil {
		return Never
	}
	return k.Cut()
}

func (k *Sink) refusal(to string) string {
	if k.Refuse == nil {
		return ""
	}
	return k.Refuse(to)
}

// session is one connection.
type session struct {
	sink *Sink
	r    *bufio.Reader
	w    *bufio.Writer
	cut  Step // of the connection, and then of each transaction
	to   []string
}

var errCut = errors.New("the sink cuts the connection here")

// at says line, unless the connection is to be cut instead.
func (s *session) at(step Step, line string) error {
	if s.cut == step {
		_ = s.w.Flush() // what came before it was said
		return errCut
	}
	fmt.Fprintf(s.w, "%s\r\n", line)
	return nil
}

// run speaks until the client goes, or the connection is to be cut: then it returns true.
func (s *session) run() bool {
	s.cut = s.sink.cut()
	err := s.at(AtGreeting, "220 sink.example")
	for err == nil {
		if s.r.Buffered() == 0 && s.w.Flush() != nil {
			return false
		}
		var line string
		if line, err = s.r.ReadString('\n'); err == nil {
			err = s.command(line)
		}
	}
	_ = s.w.Flush()
	return err == errCut
}

func (s *session) command(line string) error {
	switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
	case "EHLO":
		for _, word := range strings.Fields(s.sink.Offers) {
			fmt.Fprintf(s.w, "250-%s\r\n", word)
		}
		return s.at(AtHello, "250 PIPELINING")
	case "MAIL":
		s.to = nil
		if s.cut <= AtHello {
			s.cut = s.sink.cut()
		}
		return s.at(AtMail, "250 2.1.0 ok")
	case "RCPT":
		_, to, _ := strings.Cut(line, "<")
		to, _, _ = strings.Cut(to, ">")
		if no := s.sink.refusal(to); no != "" {
			return s.at(AtRcpt, no)
		}
		s.to = append(s.to, to)
		return s.at(AtRcpt, "250 2.1.5 ok")
	case "DATA":
		return s.data()
	case "QUIT":
		fmt.Fprint(s.w, "221 2.0.0 bye\r\n")
		return io.EOF
	}
	s.to = nil // RSET begins anew
	fmt.Fprint(s.w, "250 2.0.0 ok\r\n")
	return nil
}

func (s *session) data() error {
	if len(s.to) == 0 {
		fmt.Fprint(s.w, "503 5.5.1 no recipients\r\n")
		return nil
	}
	if err := s.at(AtData, "354 go"); err != nil {
		return err
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if s.cut == InBody {
		_, _ = s.r.ReadByte()
		return errCut
	}
	raw, err := ReadDots(s.r)
	if err != nil {
		return err
	}
	if s.cut == AtDot {
		return errCut
	}
	taken := s.sink.take(raw, s.to)
	err = s.reply()
	if err != nil {
		s.sink.wasCut(taken)
	}
	s.to = nil
	if err == nil {
		s.cut = Never
	}
	return err
}

// reply answers the final dot. An error means that the client has not got all of it from here.
func (s *session) reply() error {
	switch s.cut {
	case AfterTaking:
		return errCut
	case InReply:
		fmt.Fprint(s.w, "250 2.0")
		_ = s.w.Flush()
		return errCut
	}
	fmt.Fprint(s.w, "250 2.0.0 taken\r\n")
	return s.w.Flush()
}

// ReadDots reads a message as it came, but for the dots of RFC 5321, 4.5.2.
func ReadDots(r *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return b, nil
		}
		b = append(b, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// take notes a message for each of its recipients.
func (k *Sink) take(raw []byte, to []string) (taken []*ledger.Arrival) {
	a := Read(raw)
	for _, one := range a.For(to) {
		taken = append(taken, &one)
	}
	k.mu.Lock()
	k.arrivals = append(k.arrivals, taken...)
	if k.Content != nil {
		k.Content(raw)
	}
	k.mu.Unlock()
	if k.Taken != nil {
		k.Taken(a, to)
	}
	return taken
}

func (k *Sink) wasCut(taken []*ledger.Arrival) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range taken {
		a.Cut = true
	}
}

// Read knows a message again: by its number, by the server's ID in its Received field, and by the sum of its body.
func Read(raw []byte) ledger.Arrival {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	return ledger.Arrival{ID: word(head, "\r\nX-Number: "), Queue: word(head, " id "), Sum: Sum(body), When: time.Now()}
}

// word returns the word that stands behind a text in a header, or "".
func word(head []byte, before string) string {
	_, rest, _ := bytes.Cut(head, []byte(before))
	if i := bytes.IndexAny(rest, "; \t\r"); i >= 0 {
		rest = rest[:i]
	}
	return string(rest)
}
