package smtpd

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

// state is how far a session has come, as a set.
type state uint8

// The parts of state.
const (
	greeted   state = 1 << iota // EHLO, HELO or LHLO was accepted
	encrypted                   // TLS
	loggedIn                    // AUTH
	inMail                      // MAIL was accepted
	hasRcpt                     // so was a RCPT
	inChunks                    // a BDAT without LAST was
)

// rule says when a command is taken, and what takes it: run returns what go-smtp is to read, nothing when it has
// answered the command itself. A nil run hands the line to go-smtp as it is.
type rule struct {
	verb  string
	needs state
	bars  state
	junk  bool // it brings no message any nearer
	run   func(d *desk, arg string, line []byte) []byte
}

// rules is the order of commands (RFC 5321, 4.1.4; RFC 3207, 4; RFC 4954, 4; RFC 3030, 2).
var rules = [...]rule{
	{verb: "MAIL", needs: greeted, bars: inMail, run: (*desk).mailLine},
	{verb: "RCPT", needs: greeted | inMail, bars: inChunks, run: (*desk).rcptLine},
	{verb: "DATA", needs: greeted | inMail | hasRcpt, bars: inChunks},
	{verb: "BDAT", run: (*desk).bdatLine}, // its chunk follows whatever the answer is
	{verb: "EHLO", junk: true, run: (*desk).ehloLine},
	{verb: "HELO", junk: true, run: (*desk).heloLine},
	{verb: "LHLO", junk: true, run: (*desk).lhloLine},
	{verb: "RSET", junk: true},
	{verb: "QUIT", run: (*desk).quitLine},
	{verb: "AUTH", needs: greeted, bars: inMail | loggedIn, run: (*desk).authLine},
	{verb: "STARTTLS", needs: greeted, bars: inMail | loggedIn | encrypted, run: (*desk).startTLSLine},
	{verb: "NOOP", junk: true},
	{verb: "VRFY", junk: true},
	{verb: "HELP", junk: true, run: (*desk).helpLine},
	{verb: "EXPN", junk: true}, {verb: "TURN", junk: true},
	{verb: "SEND", junk: true}, {verb: "SOML", junk: true}, {verb: "SAML", junk: true},
	// A browser that was sent here by a page is not talked to.
	{verb: "GET", run: (*desk).foreignLine}, {verb: "POST", run: (*desk).foreignLine},
	{verb: "PUT", run: (*desk).foreignLine}, {verb: "CONNECT", run: (*desk).foreignLine},
}

// complaints are the answers to commands out of order, the first that applies.
var complaints = [...]struct {
	missing state
	present state
	reply   mail.Reply
}{
	{missing: greeted, reply: mail.NewReply(503, "5.5.1", "introduce yourself first")},
	{present: inChunks, reply: mail.NewReply(503, "5.5.1", "not between the chunks of a message")},
	{present: inMail, reply: mail.NewReply(503, "5.5.1", "a transaction is open already")},
	{present: loggedIn, reply: mail.NewReply(503, "5.5.1", "you have logged in already")},
	{present: encrypted, reply: mail.NewReply(503, "5.5.1", "TLS is active already")},
	{missing: inMail, reply: mail.NewReply(503, "5.5.1", "MAIL first")},
	{missing: hasRcpt, reply: mail.NewReply(554, "5.5.1", "no valid recipients")},
}

// outOfOrder returns the complaint about a command, if there is one.
func (r *rule) outOfOrder(s state) *mail.Reply {
	missing, present := r.needs&^s, r.bars&s
	if missing|present == 0 {
		return nil
	}
	for i := range complaints {
		if c := &complaints[i]; c.missing&missing|c.present&present != 0 {
			return &c.reply
		}
	}
	return nil
}

// command takes a command line and returns what go-smtp is to read.
func (d *desk) command(line []byte) []byte {
	d.edge.verb = ""
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		text = line[:len(line)-1]
		if d.server.cfg.BareLF == BareLFReject {
			d.edge.say(mail.NewReply(521, "5.5.2", "lines end in CRLF (RFC 5321, 2.3.8)"))
			return nil
		}
	}
	if !isText(text) {
		return d.tell(mail.NewReply(500, "5.5.2", "the line holds control characters, or is not UTF-8"))
	}
	verb, arg, _ := strings.Cut(string(text), " ")
	for i := range rules {
		r := &rules[i]
		if !strings.EqualFold(verb, r.verb) {
			continue
		}
		d.edge.verb = r.verb
		if r.junk && !d.allowJunk() {
			return nil
		}
		if c := r.outOfOrder(d.state()); c != nil {
			return d.tell(*c)
		}
		if r.run != nil {
			return r.run(d, strings.TrimSpace(arg), line)
		}
		return line
	}
	return d.tell(mail.NewReply(500, "5.5.2", "command not recognized"))
}

// tell answers a command without go-smtp.
func (d *desk) tell(r mail.Reply) []byte {
	d.edge.say(r)
	return nil
}

// isText reports that a command line holds nothing that a log, a header or a peer could take for something else.
func isText(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(line)
}

// allowJunk counts commands that lead nowhere.
func (d *desk) allowJunk() bool {
	if d.junk++; d.junk <= d.server.cfg.Limits.Junk {
		return true
	}
	d.edge.sayGoodbye("4.7.0", "too many commands without a message")
	return false
}

// mistake counts what was answered 4xx or 5xx. Temporary refusals are not the client's fault, but there is an end.
func (d *desk) mistake(code int) {
	limits := &d.server.cfg.Limits
	if code >= 500 {
		d.errors++
	} else {
		d.deferrals++
	}
	switch {
	case d.parted:
	case d.logins >= limits.AuthFailures:
		d.edge.sayGoodbye("4.7.0", "too many failed logins")
	case d.errors > limits.Errors || d.deferrals > 2*limits.Recipients+limits.Junk:
		d.edge.sayGoodbye("4.7.0", "too many errors")
	}
}

func (d *desk) state() state {
	var s state
	set := func(on bool, bit state) {
		if on {
			s |= bit
		}
	}
	set(d.info.Helo != "", greeted)
	set(d.info.TLS != nil, encrypted)
	set(d.info.User != "", loggedIn)
	set(d.tx.open, inMail)
	set(d.tx.rcpts > 0, hasRcpt)
	set(d.tx.body != nil, inChunks)
	return s
}

func (d *desk) ehloLine(arg string, line []byte) []byte { return d.greet("EHLO", arg, line) }
func (d *desk) heloLine(arg string, line []byte) []byte { return d.greet("HELO", arg, line) }
func (d *desk) lhloLine(arg string, line []byte) []byte { return d.greet("LHLO", arg, line) }

// greet takes the client's name and asks the helo stage about it.
func (d *desk) greet(verb, arg string, line []byte) []byte {
	if d.server.cfg.LMTP != (verb == "LHLO") {
		return d.tell(mail.NewReply(500, "5.5.1", "this server does not speak that protocol")) // RFC 2033, 4.1
	}
	name, _, _ := strings.Cut(arg, " ")
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(c rune) bool { return c >= utf8.RuneSelf || c == '\t' }) {
		return d.tell(mail.NewReply(501, "5.5.2", "a domain name or an address literal is wanted"))
	}
	d.Reset() // RFC 5321, 4.1.4
	d.info.Helo, d.info.ESMTP = name, verb != "HELO"
	if r := d.helo(); r != nil {
		d.info.Helo = ""
		return d.tell(*r)
	}
	d.introduced = false
	if verb == "LHLO" {
		d.edge.verb = "EHLO"
	}
	return line
}

// mailLine reads the reverse-path and hands go-smtp the line with the path in its one canonical form.
func (d *desk) mailLine(arg string, _ []byte) []byte {
	rest, ok := cutFold(arg, "FROM:")
	if !ok {
		return d.tell(mail.NewReply(501, "5.5.2", "MAIL FROM:<address> is wanted"))
	}
	p, params, err := parsePath(rest)
	if err != nil {
		return d.tell(mail.NewReply(501, "5.1.7", "that is not a sender's address"))
	}
	if params, p.priority, ok = cutPriority(params); !ok {
		return d.tell(mail.NewReply(501, "5.5.4", "MT-PRIORITY is one whole number from -9 to 9")) // RFC 6710
	}
	d.path = p
	return d.pathLine("MAIL FROM:<", params)
}

// rcptLine reads the forward-path. <postmaster> needs no domain (RFC 5321, 4.5.1).
func (d *desk) rcptLine(arg string, _ []byte) []byte {
	rest, ok := cutFold(arg, "TO:")
	if !ok {
		return d.tell(mail.NewReply(501, "5.5.2", "RCPT TO:<address> is wanted"))
	}
	if params, ok := cutFold(strings.TrimLeft(rest, " "), "<postmaster>"); ok {
		rest = "<postmaster@" + d.server.cfg.Postmaster + ">" + params
	}
	p, params, err := parsePath(rest)
	if err != nil || p.address.IsNull() {
		return d.tell(mail.NewReply(501, "5.1.3", "that is not a recipient's address"))
	}
	d.path = p
	return d.pathLine("RCPT TO:<", params)
}

func (d *desk) pathLine(start, params string) []byte {
	line := append(d.scratch[:0], start...)
	line = append(line, d.path.address.String()...)
	line = append(line, '>')
	line = append(line, params...)
	d.scratch = append(line, "\r\n"...)
	return d.scratch
}

func (d *desk) authLine(_ string, line []byte) []byte {
	switch {
	case d.server.deps.Authenticator == nil:
		return d.tell(mail.NewReply(502, "5.5.1", "AUTH is not available"))
	case !d.mayLogIn():
		// RFC 4954, 4: never read a password that anybody could have read.
		return d.tell(mail.NewReply(538, "5.7.11", "TLS is required before AUTH"))
	}
	return line
}

func (d *desk) quitLine(_ string, _ []byte) []byte {
	d.reason = "quit"
	return []byte("QUIT\r\n")
}

func (d *desk) helpLine(_ string, _ []byte) []byte {
	return d.tell(mail.NewReply(214, "2.0.0", "see RFC 5321"))
}

func (d *desk) foreignLine(_ string, _ []byte) []byte {
	return d.tell(mail.NewReply(521, "5.7.0", "this is a mail server"))
}

// startTLSLine takes STARTTLS (RFC 3207). What came behind it in the clear could be an attacker's, so nothing may.
func (d *desk) startTLSLine(arg string, _ []byte) []byte {
	switch {
	case !d.canStartTLS():
		return d.tell(mail.NewReply(502, "5.5.1", "STARTTLS is not available"))
	case arg != "":
		return d.tell(mail.NewReply(501, "5.5.4", "STARTTLS takes no parameter"))
	case d.edge.from < d.edge.to:
		return d.tell(mail.NewReply(521, "5.5.1", "nothing may follow STARTTLS"))
	}
	d.edge.say(mail.NewReply(220, "2.0.0", "go ahead"))
	if d.edge.flush() == nil {
		_ = d.edge.handshake() // when it fails the edge has hung up
	}
	return nil
}

// cutFold is strings.CutPrefix for words whose case does not count.
func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
