package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// sender is a small SMTP client.
type sender struct {
	conn net.Conn
	text *textproto.Conn
	caps string
}

// dial connects and says EHLO.
func dial(address string) (*sender, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	s := &sender{conn: conn, text: textproto.NewConn(conn)}
	if _, _, err = s.text.ReadResponse(220); err == nil {
		s.caps, err = s.say(250, "EHLO client.example")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func mustDial(t testing.TB, address string) *sender {
	t.Helper()
	s, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// say sends a command and wants a reply with this code. 0 wants any reply.
func (s *sender) say(code int, format string, args ...any) (string, error) {
	if err := s.text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	got, text, err := s.text.ReadResponse(code) // 0 takes every code
	return fmt.Sprintf("%d %s", got, text), err
}

// login says AUTH PLAIN.
func (s *sender) login(code int, user, password string) (string, error) {
	return s.say(code, "AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
}

// envelope says MAIL and RCPT. from may have parameters after it, as in "<a@b.example> BODY=8BITMIME".
func (s *sender) envelope(from string, to ...string) error {
	if _, err := s.say(250, "MAIL FROM:%s", from); err != nil {
		return err
	}
	for _, rcpt := range to {
		if _, err := s.say(250, "RCPT TO:<%s>", rcpt); err != nil {
			return err
		}
	}
	return nil
}

// data sends the content, whose lines end with CRLF. Without an error it was acknowledged.
func (s *sender) data(content []byte) error {
	if _, err := s.say(354, "DATA"); err != nil {
		return err
	}
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), content...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if _, err := s.conn.Write(append(stuffed, ".\r\n"...)); err != nil {
		return err
	}
	_, _, err := s.text.ReadResponse(250)
	return err
}

// send sends one message.
func (s *sender) send(from, to string, content []byte) error {
	if err := s.envelope(from, to); err != nil {
		return err
	}
	return s.data(content)
}

// numbered makes the message that a sink knows by its number.
func numbered(id string, body []byte) []byte {
	return fmt.Appendf(nil, "From: <carol@sender.example>\r\nSubject: message %s\r\nX-Number: %s\r\n\r\n%s", id, id, body)
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// arrival is one message for one recipient at a sink.
type arrival struct {
	id, to, sum string // the sum is that of the body
	when        time.Time
}

// sink is an SMTP server that takes everything and remembers what it took.
type sink struct {
	listener net.Listener
	offers   string       // ESMTP keywords, separated by spaces
	refuse   string       // the reply to RCPT, instead of 250
	content  func([]byte) // is shown every message, if it is not nil
	serving  sync.WaitGroup

	mu       sync.Mutex
	got      []arrival
	accepted int // connections
	open     map[net.Conn]struct{}
}

// openSink listens on an address until the test ends.
func openSink(t testing.TB, address string, k *sink) *sink {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	k.listener, k.open = l, map[net.Conn]struct{}{}
	k.serving.Go(k.accept)
	t.Cleanup(k.close)
	return k
}

func (k *sink) close() {
	k.listener.Close()
	k.mu.Lock()
	for c := range k.open {
		c.Close()
	}
	k.mu.Unlock()
	k.serving.Wait()
}

func (k *sink) accept() {
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
			k.serve(c)
			c.Close()
			k.mu.Lock()
			delete(k.open, c)
			k.mu.Unlock()
		})
	}
}

// serve speaks with one client until it goes.
func (k *sink) serve(c net.Conn) {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	fmt.Fprint(w, "220 sink.example\r\n")
	var to []string
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO":
			k.greet(w)
		case "RCPT":
			if k.refuse != "" {
				fmt.Fprintf(w, "%s\r\n", k.refuse)
				continue
			}
			to = append(to, line[strings.IndexByte(line, '<')+1:strings.IndexByte(line, '>')])
			fmt.Fprint(w, "250 2.1.5 ok\r\n")
		case "DATA":
			if len(to) == 0 {
				fmt.Fprint(w, "503 5.5.1 no recipients\r\n")
				continue
			}
			fmt.Fprint(w, "354 go\r\n")
			if w.Flush() != nil {
				return
			}
			raw, err := readDots(r)
			if err != nil {
				return
			}
			k.take(raw, to)
			to = nil
			fmt.Fprint(w, "250 2.0.0 taken\r\n")
		case "QUIT":
			fmt.Fprint(w, "221 2.0.0 bye\r\n")
			_ = w.Flush()
			return
		default:
			to = nil // MAIL and RSET begin anew
			fmt.Fprint(w, "250 2.0.0 ok\r\n")
		}
	}
}

func (k *sink) greet(w io.Writer) {
	words := strings.Fields(k.offers)
	for _, word := range words {
		fmt.Fprintf(w, "250-%s\r\n", word)
	}
	fmt.Fprint(w, "250 PIPELINING\r\n")
}

// readDots reads a message as it came, but for the dots of RFC 5321, 4.5.2.
func readDots(r *bufio.Reader) ([]byte, error) {
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

func (k *sink) take(raw []byte, to []string) {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	id := ""
	if _, rest, ok := bytes.Cut(head, []byte("X-Number: ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\r\n"))
		id = string(line)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, rcpt := range to {
		k.got = append(k.got, arrival{id, rcpt, sumOf(body), time.Now()})
	}
	if k.content != nil {
		k.content(raw)
	}
}

// arrivals returns what has come until now, and over how many connections.
func (k *sink) arrivals() ([]arrival, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]arrival(nil), k.got...), k.accepted
}

// tap passes a connection through to another address and keeps what the client says.
type tap struct {
	address string
	mu      sync.Mutex
	said    bytes.Buffer
}

// openTap listens on a port of its own.
func openTap(t testing.TB, to string) *tap {
	t.Helper()
	l, err := listenFree()
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{address: l.Addr().String()}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { p.pass(c, to) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return p
}

func (p *tap) pass(c net.Conn, to string) {
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, io.TeeReader(c, p))
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, server)
}

// Write keeps what the client says.
func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *tap) heard() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.said.Bytes())
}
