package pop3

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Bounds on time. RFC 1939, 3 wants at least ten minutes of patience.
const (
	patience  = 10 * time.Minute
	writeTime = 5 * time.Minute
)

// maxBad is how many commands in a row may be wrong.
const maxBad = 20

// session is one connection.
type session struct {
	server *Server
	conn   net.Conn
	under  *gate.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	secure bool

	user    string
	wrong   int // logins
	bad     int // commands in a row
	account *box.Account
	folder  *box.Mailbox
	msgs    []*box.Message
	deleted map[int]bool // by index
	done    bool
}

func newSession(s *Server, conn net.Conn) *session {
	x := &session{server: s, under: gate.Under(conn)}
	x.use(conn)
	return x
}

// use reads and writes through a connection from now on. What was read ahead is dropped.
func (s *session) use(conn net.Conn) {
	_, s.secure = conn.(*tls.Conn)
	s.conn, s.r, s.w = conn, bufio.NewReaderSize(conn, maxLine), bufio.NewWriterSize(conn, 32<<10)
}

func (s *session) run() {
	defer s.close()
	s.ok("ready")
	for s.flush() == nil && !s.done {
		_ = s.conn.SetReadDeadline(time.Now().Add(patience)) // the read tells what is wrong
		line, err := readLine(s.r)
		if errors.Is(err, errLong) {
			s.err("the line is too long")
			_ = s.flush() // it is closed all the same
			return
		}
		if err != nil {
			return
		}
		s.command(parseCommand(line))
	}
}

func (s *session) flush() error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime)) // the write tells what is wrong
	return s.w.Flush()
}

func (s *session) close() {
	if s.folder != nil {
		s.folder.Close()
	}
	if s.account != nil {
		s.server.release(s.account.Key())
		s.account.Close()
	}
	s.conn.Close()
}

func (s *session) ok(format string, args ...any) {
	fmt.Fprintf(s.w, "+OK "+format+"\r\n", args...)
}

func (s *session) err(text string) {
	fmt.Fprintf(s.w, "-ERR %s\r\n", text)
}

// command answers one command. What is allowed before the login and after it stands in two tables.
func (s *session) command(c command) {
	table := s.before()
	if s.account != nil {
		table = s.after()
	}
	do := table[c.verb]
	if do == nil {
		s.err("no such command here")
		if s.bad++; s.bad >= maxBad {
			s.done = true
		}
		return
	}
	s.bad = 0
	do(c)
}

func (s *session) before() map[string]func(command) {
	return map[string]func(command){
		"CAPA": s.capa, "STLS": s.stls, "USER": s.name, "PASS": s.password, "AUTH": s.auth, "QUIT": s.quit,
	}
}

func (s *session) after() map[string]func(command) {
	return map[string]func(command){
		"CAPA": s.capa, "STAT": s.stat, "LIST": s.list, "UIDL": s.uidl, "RETR": s.retr, "TOP": s.top,
		"DELE": s.dele, "RSET": s.rset, "NOOP": func(command) { s.ok("") }, "QUIT": s.quit,
	}
}

func (s *session) mayLogIn() bool { return s.secure || s.server.gate.InsecureAuth() }

// capa tells what we can (RFC 2449, 5 and 6; RFC 3206 for the codes).
func (s *session) capa(command) {
	s.ok("capabilities")
	words := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"}
	if s.account == nil && s.server.gate.TLS() != nil && !s.secure {
		words = append(words, "STLS")
	}
	if s.mayLogIn() {
		words = append(words, "USER", "SASL PLAIN")
	}
	fmt.Fprintf(s.w, "%s\r\n.\r\n", strings.Join(words, "\r\n"))
}

// stls begins TLS (RFC 2595, 4). What a client has sent ahead of it is not obeyed: the connection ends.
func (s *session) stls(command) {
	if s.server.gate.TLS() == nil || s.secure {
		s.err("no TLS here")
		return
	}
	if s.r.Buffered() > 0 {
		s.err("nothing may follow STLS")
		s.done = true
		return
	}
	s.ok("begin TLS")
	if s.flush() != nil {
		s.done = true
		return
	}
	s.user = ""
	s.use(tls.Server(s.conn, s.server.gate.TLS()))
}

func (s *session) name(c command) {
	if !s.mayLogIn() {
		s.err("TLS first")
		return
	}
	if s.user = c.rest; s.user == "" {
		s.err("who?")
		return
	}
	s.ok("and the password?")
}

func (s *session) password(c command) {
	if s.user == "" {
		s.err("USER comes first")
		return
	}
	user := s.user
	s.user = ""
	s.login(user, c.rest, "PLAIN")
}

// auth logs in by SASL PLAIN (RFC 5034, RFC 4616).
func (s *session) auth(c command) {
	switch {
	case len(c.args) == 0:
		s.ok("mechanisms")
		fmt.Fprintf(s.w, "PLAIN\r\n.\r\n")
		return
	case !strings.EqualFold(c.args[0], "PLAIN"):
		s.err("no such mechanism")
		return
	case !s.mayLogIn():
		s.err("TLS first")
		return
	}
	response, ok := s.response(c)
	if !ok {
		return
	}
	b, err := base64.StdEncoding.DecodeString(response)
	parts := strings.Split(string(b), "\x00")
	if err != nil || len(parts) != 3 || parts[0] != "" && parts[0] != parts[1] {
		s.err("no such response")
		return
	}
	s.login(parts[1], parts[2], "PLAIN")
}

// response returns what the client says for AUTH: in the same line, or when it is asked.
func (s *session) response(c command) (string, bool) {
	if len(c.args) > 1 {
		return c.args[1], true
	}
	fmt.Fprint(s.w, "+ \r\n")
	if s.flush() != nil {
		s.done = true
		return "", false
	}
	line, err := readLine(s.r)
	if err != nil || line == "*" {
		s.done = err != nil
		s.err("never mind")
		return "", false
	}
	return line, true
}

func (s *session) login(user, password, mechanism string) {
	remote := s.under.Remote()
	identity, err := s.server.guard.Login(s.server.ctx, mail.Login{
		User: user, Password: password, Mechanism: mechanism, Remote: remote, Service: "pop3",
	})
	switch {
	case errors.Is(err, mail.ErrBadLogin):
		s.err("[AUTH] wrong account or password")
		s.wrong++
		s.done = s.wrong >= gate.MaxPerSession
		return
	case errors.Is(err, gate.ErrTooMany):
		s.err("[LOGIN-DELAY] too many wrong logins, try again later")
		s.done = true
		return
	case err == nil:
		err = s.enter(identity.User)
	}
	switch {
	case errors.Is(err, errInUse):
		s.err("[IN-USE] another program is reading this mailbox")
	case err != nil:
		s.trouble()
	default:
		s.ok("%d messages", len(s.msgs))
	}
}

func (s *session) trouble() {
	s.err("[SYS/TEMP] the mail store has trouble, try again later")
}

// enter opens the inbox for this session alone (RFC 1939, 4).
func (s *session) enter(user string) error {
	account, err := s.server.store.Account(user)
	if err != nil {
		s.server.log.Warn("a mailbox can't be opened", "account", user, "error", err, "hint", box.Hint(err))
		return err
	}
	if !s.server.claim(account.Key()) {
		account.Close()
		return errInUse
	}
	folder, err := account.Open(box.Inbox)
	if err != nil {
		account.Trouble("opening the inbox", err)
	}
	if err != nil || !s.under.Enter(account.Key()) {
		if err == nil {
			folder.Close()
			err = errInUse
		}
		s.server.release(account.Key())
		account.Close()
		return err
	}
	s.account, s.folder, s.msgs, s.deleted = account, folder, folder.Messages(), make(map[int]bool)
	return nil
}

// message returns the message that an argument names, or answers that there is none.
func (s *session) message(c command) (i int, msg *box.Message) {
	i = c.number(0) - 1
	if i < 0 || i >= len(s.msgs) || s.deleted[i] {
		s.err("no such message")
		return 0, nil
	}
	return i, s.msgs[i]
}

func (s *session) size(i int) int64 {
	n, err := s.folder.Size(s.msgs[i])
	if err != nil {
		return 0 // it has been removed, or can't be read: RETR says so
	}
	return n
}

func (s *session) stat(command) {
	n, size := 0, int64(0)
	for i := range s.msgs {
		if !s.deleted[i] {
			n++
			size += s.size(i)
		}
	}
	s.ok("%d %d", n, size)
}

func (s *session) list(c command) {
	s.listing(c, func(i int) string { return strconv.FormatInt(s.size(i), 10) })
}

// uidl names messages by validity and UID: the same for as long as they are there (RFC 1939, 7).
func (s *session) uidl(c command) {
	validity := s.folder.Status().Validity
	s.listing(c, func(i int) string { return fmt.Sprintf("%08x%08x", validity, s.msgs[i].UID) })
}

func (s *session) listing(c command, of func(i int) string) {
	if len(c.args) > 0 {
		if i, msg := s.message(c); msg != nil {
			s.ok("%d %s", i+1, of(i))
		}
		return
	}
	s.ok("")
	for i := range s.msgs {
		if !s.deleted[i] {
			fmt.Fprintf(s.w, "%d %s\r\n", i+1, of(i))
		}
	}
	fmt.Fprint(s.w, ".\r\n")
}

func (s *session) retr(c command) { s.send(c, -1) }

func (s *session) top(c command) {
	if len(c.args) != 2 {
		s.err("TOP message lines")
		return
	}
	lines, err := strconv.Atoi(c.args[1])
	if err != nil || lines < 0 {
		s.err("how many lines?")
		return
	}
	s.send(c, lines)
}

// send sends a message, or its header and some lines.
func (s *session) send(c command, lines int) {
	_, msg := s.message(c)
	if msg == nil {
		return
	}
	b, free, err := s.folder.Load(msg)
	if errors.Is(err, box.ErrGone) {
		s.err("the message has been removed")
		return
	}
	if err != nil {
		s.account.Trouble("reading a message", err)
		s.trouble()
		return
	}
	defer free()
	if lines >= 0 {
		b = topOf(b, lines)
	}
	s.ok("%d octets", len(b))
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime)) // the write tells what is wrong
	writeDotted(s.w, b)
	if s.flush() != nil {
		s.done = true
	}
}

// topOf returns the header, the empty line and as many lines of the body.
func topOf(b []byte, lines int) []byte {
	at := len(box.Parse(b).Header)
	for ; lines > 0 && at < len(b); lines-- {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return b
		}
		at += i + 1
	}
	return b[:at]
}

// writeDotted writes lines with a dot before each dot that begins one, and the dot that ends them (RFC 1939, 3). A lone LF
// does not end a line and is kept: it may stand in a binary part. But many clients think that it does, and for them a dot
// alone on such a line would be the end, and what follows it our answers. That dot gets another one for everybody.
func writeDotted(w io.Writer, b []byte) {
	crlf := true // what comes begins a line
	for len(b) > 0 {
		if b[0] == '.' && (crlf || isAlone(b)) {
			fmt.Fprint(w, ".")
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			_, _ = w.Write(b) // the flush tells what is wrong
			crlf = false
			break
		}
		_, _ = w.Write(b[:i+1])
		crlf = i > 0 && b[i-1] == '\r'
		b = b[i+1:]
	}
	if !crlf {
		fmt.Fprint(w, "\r\n")
	}
	fmt.Fprint(w, ".\r\n")
}

// isAlone says whether a line that begins with a dot has nothing else.
func isAlone(b []byte) bool {
	return len(b) > 1 && b[1] == '\n' || len(b) > 2 && b[1] == '\r' && b[2] == '\n'
}

func (s *session) dele(c command) {
	if i, msg := s.message(c); msg != nil {
		s.deleted[i] = true
		s.ok("it goes with QUIT")
	}
}

func (s *session) rset(command) {
	clear(s.deleted)
	s.ok("nothing is deleted")
}

// quit removes what was marked; a connection that ends without it removes nothing (RFC 1939, 6).
func (s *session) quit(command) {
	s.done = true
	if s.account == nil || len(s.deleted) == 0 {
		s.ok("bye")
		return
	}
	var gone []*box.Message
	for i := range s.deleted {
		gone = append(gone, s.msgs[i])
	}
	if err := s.folder.Remove(gone); err != nil {
		s.account.Trouble("removing messages", err)
		s.err("[SYS/TEMP] some messages were not removed")
		return
	}
	s.ok("bye")
}
