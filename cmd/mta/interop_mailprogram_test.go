//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// strangeOffice is a mail system without a line of ours: people write to Postfix, which asks Dovecot for passwords and
// hands what it takes to Dovecot, where people read. Its folders have names of their own (RFC 6154).
type strangeOffice struct {
	t       *testing.T
	dir     string
	dovecot *dovecot
	postfix *postfix
}

const strangeFolders = `
ssl = required
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
disable_plaintext_auth = yes
passdb {
  driver = passwd-file
  args = ${DIR}/accounts
}
namespace inbox {
  inbox = yes
  separator = /
  mailbox Gesendet {
    special_use = \Sent
    auto = create
  }
  mailbox "Entwürfe" {
    special_use = \Drafts
    auto = create
  }
  mailbox Papierkorb {
    special_use = \Trash
    auto = create
  }
}
service auth {
  unix_listener %[1]s/sasl {
    mode = 0666
  }
}
`

func newStrangeOffice(t *testing.T) *strangeOffice {
	t.Helper()
	o := &strangeOffice{t: t, dir: peerDir(t)}
	writeCertificate(t, o.dir)
	o.dovecot = startDovecot(t, "", fmt.Sprintf(strangeFolders, o.dir), "ann@next.test", "bob@next.test", "carol@next.test")
	o.postfix = newPostfix(t, fmt.Sprintf("smtpd_tls_cert_file = %[1]s/cert.pem\nsmtpd_tls_key_file = %[1]s/key.pem\n"+
		"smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"+
		"smtpd_sasl_path = %[1]s/sasl\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n"+
		"virtual_transport = lmtp:unix:%[2]s\n", o.dir, o.dovecot.socket), "ann", "bob", "carol")
	return o
}

// mail prepares `mta mail` for one of the people.
func (o *strangeOffice) mail(user string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	way := "starttls"
	if user == "carol" {
		way = "auto" // to this machine: TLS because these servers let nobody in without it
	}
	cmd := exec.Command(self, append([]string{"mail"}, args...)...)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "HOME="+o.dir, "SSL_CERT_FILE="+filepath.Join(o.dir, "cert.pem"),
		"MTA_MAIL_USER="+user+"@next.test", "MTA_PASSWORD="+secret, "MTA_MAIL_TLS="+way,
		"MTA_MAIL_IMAP=localhost:"+port(o.dovecot.imap), "MTA_MAIL_SUBMIT=localhost:"+port(o.postfix.address))
	return cmd
}

// does runs `mta mail` and wants these texts in what it prints, and no warning.
func (o *strangeOffice) does(user string, args []string, texts ...string) string {
	o.t.Helper()
	out := mustRun(o.t, o.mail(user, args...))
	contains(o.t, out, texts...)
	if strings.Contains(out, "mta: ") {
		o.t.Errorf("mta mail %q warns: %s", args, out)
	}
	return out
}

// sees runs `mta mail` until it prints this.
func (o *strangeOffice) sees(user string, args []string, text string) {
	o.t.Helper()
	var out string
	if !poll(func() bool {
		out = mustRun(o.t, o.mail(user, args...))
		return strings.Contains(out, text)
	}) {
		o.t.Fatalf("mta mail %q of %s never prints %q: %s", args, user, text, out)
	}
}

// flags are those that Dovecot itself tells of a message.
func (o *strangeOffice) flags(user, folder string, n int) string {
	o.t.Helper()
	return mustRun(o.t, exec.Command("doveadm", "-c", filepath.Join(o.dovecot.dir, "conf"), "fetch", "-u", user+"@next.test",
		"flags", "mailbox", folder, "uid", fmt.Sprint(n)))
}

// TestInteropMailProgram does with `mta mail` what a person does in a day, at Dovecot and Postfix.
func TestInteropMailProgram(t *testing.T) {
	interop(t, "doveadm")
	o := newStrangeOffice(t)
	_, report := bytesFile(t, o.dir, 300_000)
	write(t, filepath.Join(o.dir, "보고서 2026.bin"), string(report))
	write(t, filepath.Join(o.dir, "logo.png"), "\x89PNG\r\n\x1a\n"+string(report[:999]))
	write(t, filepath.Join(o.dir, "body.html"), `<p>점심 어때요? <a href="https://example.test/menu">menu</a> <img src="cid:logo"></p>`)

	watching := o.watch("bob")
	o.does("ann", []string{
		"compose", "-to", "Bob <bob@next.test>", "-cc", "carol@next.test", "-subject", "안녕하세요, 점심 식사",
		"-html", "body.html", "-picture", "logo=logo.png", "-attach", "보고서 2026.bin",
	}, "sent to bob@next.test, carol@next.test")
	var told struct {
		N           int
		Subject     string
		Attachments int
		Flags       []string
	}
	if err := json.Unmarshal([]byte(watching()), &told); err != nil || told.Subject != "안녕하세요, 점심 식사" || told.Attachments != 1 || told.N != 1 {
		t.Errorf("watch told of %+v, %v", told, err)
	}
	o.does("ann", []string{"list", "-folder", "Gesendet"}, "안녕하세요, 점심 식사", "+1 attachment")
	contains(t, o.flags("ann", "Gesendet", 1), `\Seen`)

	o.read(report)
	o.answer()
	o.drafts()
	o.order()
}

// watch starts `mta mail watch` and returns when it watches; what it returns waits for its end and tells what it printed.
func (o *strangeOffice) watch(user string) func() string {
	o.t.Helper()
	cmd := o.mail(user, "watch", "-count", "1", "-json")
	var told strings.Builder
	cmd.Stdout = &told
	errs, err := cmd.StderrPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { cmd.Process.Kill() })
	if line, err := newLines(errs).next(); err != nil || line != "watching INBOX" {
		o.t.Fatalf("watch: %q, %v", line, err)
	}
	return func() string {
		if err := cmd.Wait(); err != nil {
			o.t.Errorf("watch: %v", err)
		}
		return told.String()
	}
}

// read is the morning of bob: he looks for the letter, reads it, and saves what is in it.
func (o *strangeOffice) read(report []byte) {
	t := o.t
	t.Helper()
	o.does("bob", []string{"list", "-unread"}, "1 N ", "안녕하세요")
	for _, word := range []string{"점심", "안녕하세요, 점심", "Bob", "어때요"} {
		o.does("bob", []string{"list", "-search", word}, "안녕하세요, 점심 식사")
	}
	o.does("bob", []string{"list", "-search", "저녁"}, "No message is like that")
	o.does("bob", []string{"read", "1", "-peek"}, "Subject: 안녕하세요, 점심 식사")
	if got := o.flags("bob", "INBOX", 1); strings.Contains(got, `\Seen`) {
		t.Errorf("-peek has marked it: %s", got)
	}
	o.does("bob", []string{"read", "1"}, "점심 어때요? menu[1]", "[1] https://example.test/menu", "보고서 2026.bin", "logo.png")
	contains(t, o.flags("bob", "INBOX", 1), `\Seen`)
	o.does("bob", []string{"save", "1", "-dir", "got", "-cid"})
	for name, want := range map[string]string{"보고서 2026.bin": string(report), "logo.png": "\x89PNG\r\n\x1a\n" + string(report[:999])} {
		if got, err := os.ReadFile(filepath.Join(o.dir, "got", name)); err != nil || string(got) != want {
			t.Errorf("%s is not what was sent: %v, %d bytes", name, err, len(got))
		}
	}
	raw := o.does("bob", []string{"read", "1", "-raw"})
	if stored := filesIn(t, filepath.Join(o.dovecot.dir, "mail/next.test/bob/cur/*")); len(stored) != 1 || strings.ReplaceAll(raw, "\r\n", "\n") != stored[0] {
		t.Error("-raw is not what Dovecot keeps")
	}
}

// answer: bob answers everyone, and passes the letter on in both ways; Dovecot knows of it.
func (o *strangeOffice) answer() {
	t := o.t
	t.Helper()
	o.does("bob", []string{"reply", "1", "-all", "-body", "좋아요."}, "sent to ann@next.test, carol@next.test")
	contains(t, o.flags("bob", "INBOX", 1), `\Answered`, `\Seen`)
	o.sees("ann", []string{"list"}, "Re: 안녕하세요, 점심 식사")
	o.does("ann", []string{"read", "1"}, "좋아요.", "> 점심 어때요?")
	id := regexp.MustCompile(`(?im)^Message-ID: (<.*>)`).FindStringSubmatch(o.does("bob", []string{"read", "1", "-headers"}))
	if id == nil {
		t.Fatal("the letter has no Message-ID")
	}
	o.does("ann", []string{"read", "1", "-headers"}, "In-Reply-To: "+id[1], "References: "+id[1], "Cc: carol@next.test")

	o.does("bob", []string{"forward", "1", "-to", "ann@next.test", "-inline", "-body", "다시 봐요."}, "sent to ann@next.test")
	o.sees("ann", []string{"list"}, "+2 attachments") // the picture is a file now
	o.does("ann", []string{"read", "2"}, "다시 봐요.", "점심 어때요?", "보고서 2026.bin")
	o.does("bob", []string{"forward", "1", "-to", "ann@next.test", "-attach", "-body", "그대로."}, "sent to ann@next.test")
	contains(t, o.flags("bob", "INBOX", 1), `$Forwarded`, `\Answered`)
	o.sees("ann", []string{"list", "-search", "그대로"}, "안녕하세요")
	o.does("ann", []string{"save", "3", "-dir", "passed"})
	passed := filesIn(t, filepath.Join(o.dir, "passed/*"))
	if raw := o.does("bob", []string{"read", "1", "-raw"}); len(passed) != 1 || passed[0] != strings.ReplaceAll(raw, "\r\n", "\n") {
		t.Error("what was passed on as it is has changed")
	}
	o.does("bob", []string{"list", "-folder", "Gesendet"}, "Re: 안녕하세요", "Fwd: 안녕하세요")
}

// drafts: carol begins a letter, and sends it later.
func (o *strangeOffice) drafts() {
	t := o.t
	t.Helper()
	o.does("carol", []string{"draft", "-to", "ann@next.test", "-bcc", "bob@next.test", "-subject", "나중에", "-body", "아직."}, "kept in Entwürfe")
	contains(t, o.flags("carol", "Entwürfe", 1), `\Draft`)
	o.does("carol", []string{"list", "-folder", "Entwürfe"}, "나중에")
	o.does("carol", []string{"draft", "-send", "1"}, "sent to ann@next.test, bob@next.test")
	o.does("carol", []string{"list", "-folder", "Entwürfe"}, "Entwürfe is empty.")
	o.does("carol", []string{"read", "-folder", "Gesendet", "1", "-headers"}, "Bcc: bob@next.test", "Subject: 나중에")
	if got := o.flags("carol", "Gesendet", 1); strings.Contains(got, `\Draft`) {
		t.Errorf("what was sent is still a draft: %s", got)
	}
	o.sees("bob", []string{"list"}, "나중에")
}

// order: ann puts her folders in order.
func (o *strangeOffice) order() {
	t := o.t
	t.Helper()
	o.sees("ann", []string{"list"}, "나중에")
	o.does("ann", []string{"flag", "1", "2", "-yes", "-set", "flagged,project-7", "-clear", "seen"}, "flagged: 2 messages")
	if got := o.flags("ann", "INBOX", 2); !strings.Contains(got, `\Flagged`) || !strings.Contains(got, "project-7") || strings.Contains(got, `\Seen`) {
		t.Errorf("Dovecot tells of %s", got)
	}
	out, status := runClient(t, o.mail("ann", "move", "1", "-to", "Projekte/일거리"))
	if status == 0 || !strings.Contains(out, "-create makes it") {
		t.Errorf("move into no folder: %d, %s", status, out)
	}
	o.does("ann", []string{"move", "1", "-to", "Projekte/일거리", "-create"}, "moved to Projekte/일거리: 1 message")
	o.does("ann", []string{"list", "-folder", "Projekte/일거리"}, "Re: 안녕하세요")
	o.does("ann", []string{"delete", "2", "3", "-yes"}, "moved to Papierkorb: 2 messages")
	o.does("ann", []string{"delete", "-folder", "Papierkorb", "1"}, "removed: 1 message")
	o.does("ann", []string{"delete", "4", "-forever"}, "removed: 1 message")
	o.does("ann", []string{"list"}, "INBOX is empty.")
	folders := o.does("ann", []string{"folders"})
	for _, want := range []string{`INBOX +0 +0 new`, `Gesendet +1 +0 new  Sent`, `Papierkorb +1 +1 new  Trash`, `Projekte/일거리 +1 +1 new`, `Entwürfe +0 +0 new  Drafts`} {
		if !regexp.MustCompile(want).MatchString(folders) {
			t.Errorf("%s is not in\n%s", want, folders)
		}
	}
	if log := o.postfix.log(); !strings.Contains(log, "sasl_username=ann@next.test") || !strings.Contains(log, "sasl_method=PLAIN") {
		t.Errorf("nobody has logged in at Postfix: %s", log)
	}
}
