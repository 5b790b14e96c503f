package smtpd

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxReplyLine keeps reply lines well within the 512 octets of RFC 5321, 4.5.3.1.5.
const maxReplyLine = 400

func tempfail(enhanced, text string) *mail.Reply {
	r := mail.NewReply(451, enhanced, text)
	if enhanced == "4.3.2" || enhanced == "4.7.0" {
		r.Code = 421
	}
	return &r
}

func refusal(code int, enhanced, text string) *mail.Reply {
	r := mail.NewReply(code, enhanced, text)
	return &r
}

// publicReply is the one place where a failure becomes a reply: one that was meant for the client is passed on, anything
// else is trouble of ours, of which the client learns nothing but that it should try again.
func publicReply(err error) mail.Reply {
	var r *mail.Reply
	if errors.As(err, &r) && r.Code >= 400 && r.Check() == nil {
		return *r
	}
	return mail.NewReply(451, "4.3.0", "temporary trouble here, try again later")
}

// replyLines is the text of a reply in lines that fit the wire. Without SMTPUTF8 a client takes nothing but US-ASCII
// (RFC 6531, 3.7.4.1).
func replyLines(text string, utf8Allowed bool) []string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if !utf8Allowed {
			line = strings.Map(func(c rune) rune {
				if c >= utf8.RuneSelf {
					return '?'
				}
				return c
			}, line)
		}
		for len(line) > maxReplyLine {
			cut := maxReplyLine
			for !utf8.RuneStart(line[cut]) {
				cut--
			}
			lines = append(lines, line[:cut])
			line = line[cut:]
		}
		lines = append(lines, line)
	}
	return lines
}

// smtpError gives go-smtp a reply to send. go-smtp puts the enhanced code on the last line; RFC 2034, 4 wants it on all.
func smtpError(r mail.Reply, utf8Allowed bool) *smtp.SMTPError {
	code := smtp.NoEnhancedCode
	lines := replyLines(r.Text, utf8Allowed)
	if r.Enhanced != (mail.EnhancedCode{}) {
		code = smtp.EnhancedCode(r.Enhanced)
		for i := range lines[:len(lines)-1] {
			lines[i] = r.Enhanced.String() + " " + lines[i]
		}
	}
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: code, Message: strings.Join(lines, "\n")}
}

// say gathers a reply of our own.
func (e *edge) say(r mail.Reply) {
	lines := replyLines(r.Text, e.desk.utf8())
	prefix := ""
	if r.Enhanced != (mail.EnhancedCode{}) {
		prefix = r.Enhanced.String() + " "
	}
	start := 0
	for i, line := range lines {
		start = len(e.out)
		e.out = strconv.AppendInt(e.out, int64(r.Code), 10)
		if i < len(lines)-1 {
			e.out = append(e.out, '-')
		} else {
			e.out = append(e.out, ' ')
		}
		e.out = append(append(append(e.out, prefix...), line...), "\r\n"...)
	}
	e.said(r.Code, e.out[start:])
}

// sayGoodbye says 421, which ends every connection.
func (e *edge) sayGoodbye(enhanced, text string) {
	e.say(mail.NewReply(421, enhanced, text))
}

// Write takes go-smtp's replies, which it writes a line at a time.
func (e *edge) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			e.part = append(e.part, p...)
			break
		}
		line := p[:i+1]
		p = p[i+1:]
		if len(e.part) > 0 {
			line = append(e.part, line...)
			e.part = nil
		}
		e.reply(line)
	}
	return n, nil
}

// reply gathers one line of go-smtp's, edited.
func (e *edge) reply(line []byte) {
	if len(line) < 6 || e.desk.parted {
		return
	}
	code, err := strconv.Atoi(string(line[:3]))
	if err != nil {
		return
	}
	last := line[3] == ' '
	if e.mute && (code == 250 || code == 354) {
		e.mute = !last
		return
	}
	e.mute = false
	start := len(e.out)
	e.edit(code, last, line)
	if last {
		e.said(code, e.out[start:])
	}
}

// edit puts go-smtp's line into out, with what we say otherwise.
func (e *edge) edit(code int, last bool, line []byte) {
	switch {
	case code == 250 && e.verb == "EHLO":
		e.editEHLO(last, line)
	case code == 250 && e.verb == "HELO":
		e.out = append(append(append(e.out, "250 "...), e.server.cfg.Hostname...), "\r\n"...)
	case code == 250 && e.verb == "MAIL":
		e.out = append(e.out, "250 2.1.0 sender ok\r\n"...)
	case code == 250 && e.verb == "RCPT":
		e.out = append(e.out, "250 2.1.5 recipient ok\r\n"...)
	case code == 235 && e.verb == "AUTH":
		e.out = append(e.out, "235 2.7.0 logged in\r\n"...) // RFC 4954, 4
	case code == 500 && (e.verb == "MAIL" || e.verb == "RCPT"):
		// RFC 5321, 4.1.1.11
		e.out = append(e.out, "555 5.5.4 parameter not recognized\r\n"...)
	case code == 454 && e.verb == "AUTH" && bytes.Contains(line, []byte("base64")):
		// RFC 4954, 4
		e.out = append(e.out, "501 5.5.2 not base64\r\n"...)
	default:
		e.out = append(e.out, line...)
	}
}

// editEHLO puts our name first (RFC 5321, 4.1.1.1: go-smtp says Hello) and our keywords before the last.
func (e *edge) editEHLO(last bool, line []byte) {
	if !e.desk.introduced {
		e.desk.introduced = true
		e.out = append(append(append(e.out, "250-"...), e.server.cfg.Hostname...), "\r\n"...)
		return
	}
	if last {
		if e.desk.canStartTLS() {
			e.out = append(e.out, "250-STARTTLS\r\n"...)
		}
		if e.desk.info.TLS != nil {
			e.out = append(e.out, "250-REQUIRETLS\r\n"...) // RFC 8689, 2
		}
		if priority := "250-MT-PRIORITY\r\n"; !e.hidden([]byte(priority)) {
			e.out = append(e.out, priority...) // RFC 6710
		}
	}
	if e.hidden(line) {
		if last {
			e.out = append(e.out, "250 HELP\r\n"...) // some line has to be the last
		}
		return
	}
	e.out = append(e.out, line...)
}

// hidden reports whether the keyword of an EHLO line is one that this listener does not offer. A client that uses it all
// the same is served.
func (e *edge) hidden(line []byte) bool {
	if len(e.server.cfg.Hide) == 0 {
		return false
	}
	words := bytes.Fields(line[4:])
	return len(words) > 0 && slices.Contains(e.server.cfg.Hide, string(bytes.ToUpper(words[0])))
}

// said is told of each reply once it stands in out. It is where a client that makes too many mistakes is cut off.
func (e *edge) said(code int, line []byte) {
	e.challenge = code == 334
	d := e.desk
	if code == 421 || code == 521 {
		e.hangup, d.abrupt, d.parted = true, true, true
	}
	if code >= 400 {
		d.refused(e.verb, string(bytes.TrimRight(line, "\r\n")), nil)
		d.mistake(code)
	}
	if len(e.out) > maxReplies {
		_ = e.flush() // a failure is remembered, and ends the next read
	}
}
