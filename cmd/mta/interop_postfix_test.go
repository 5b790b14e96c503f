//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/tlspolicy"
	"github.com/pabal-mta/mta/sdk/mail"
)

// postfix is a Postfix of our own, with its configuration, queue and mailboxes in a folder of the test.
type postfix struct {
	t       *testing.T
	dir     string
	address string // where it takes mail
}

const postfixMain = `
compatibility_level = 3.6
queue_directory = ${DIR}/spool
data_directory = ${DIR}/data
command_directory = /usr/sbin
daemon_directory = ${DAEMONS}
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
maillog_file = ${DIR}/maillog
maillog_file_prefixes = ${DIR}
queue_run_delay = 2s
minimal_backoff_time = 2s
virtual_mailbox_domains = next.test
virtual_mailbox_maps = texthash:${DIR}/mailboxes
virtual_mailbox_base = ${DIR}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 100
`

const postfixMaster = `${ADDRESS} inet n - n - - smtpd
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
verify     unix  - - n - 1 verify
proxymap   unix  - - n - - proxymap
smtp       unix  - - n - - smtp
relay      unix  - - n - - smtp
lmtp       unix  - - n - - lmtp
showq      unix  n - n - - showq
error      unix  - - n - - error
retry      unix  - - n - - error
virtual    unix  - n n - - virtual
anvil      unix  - - n - 1 anvil
scache     unix  - - n - 1 scache
postlog    unix-dgram n - n - 1 postlogd
`

// newPostfix starts a Postfix that keeps the mail of these users of next.test and has more in its main.cf.
func newPostfix(t *testing.T, more string, users ...string) *postfix {
	t.Helper()
	interop(t, "postfix", "postconf")
	needRoot(t)
	p := &postfix{t: t, dir: peerDir(t), address: freeAddress(t)}
	daemons := strings.TrimSpace(mustRun(t, exec.Command("postconf", "-d", "-h", "daemon_directory")))
	expand := func(text string) string {
		return os.Expand(text, func(name string) string {
			return map[string]string{"DIR": p.dir, "DAEMONS": daemons, "ADDRESS": p.address}[name]
		})
	}
	for _, sub := range []string{"etc", "spool", "data", "mail"} {
		if err := os.Mkdir(filepath.Join(p.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	owner := nobody(t)
	if err := os.Chown(filepath.Join(p.dir, "mail"), int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, exec.Command("chown", "postfix", filepath.Join(p.dir, "data")))
	var mailboxes strings.Builder
	for _, u := range users {
		fmt.Fprintf(&mailboxes, "%s@next.test %s/\n", u, u)
	}
	write(t, filepath.Join(p.dir, "mailboxes"), mailboxes.String())
	write(t, filepath.Join(p.dir, "etc/main.cf"), expand(postfixMain)+more)
	write(t, filepath.Join(p.dir, "etc/master.cf"), expand(postfixMaster))
	mustRun(t, exec.Command("postfix", "-c", filepath.Join(p.dir, "etc"), "check"))
	t.Cleanup(func() { showLog(t, filepath.Join(p.dir, "maillog")) })
	master := exec.Command(filepath.Join(daemons, "master"), "-s", "-c", filepath.Join(p.dir, "etc"))
	daemon(t, master, filepath.Join(p.dir, "out"))
	guard(t, master.Process.Pid)
	if !poll(func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = newLines(conn).next()
		return err == nil
	}) {
		t.Fatal("Postfix does not greet")
	}
	return p
}

// guard ends a process when this one is killed. Postfix changes its user, and then the kernel forgets the signal that it
// should get at our death.
func guard(t *testing.T, pid int) {
	t.Helper()
	watch := exec.Command("sh", "-c", fmt.Sprintf("cat; kill %d", pid))
	lifeline, err := watch.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		watch.Process.Kill() // before its input ends: then it would kill
		_ = watch.Wait()
		lifeline.Close()
	})
}

// log is what Postfix has written down.
func (p *postfix) log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "maillog"))
	return string(b)
}

// fifty are names of users.
func fifty() []string {
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("user%02d", i))
	}
	return names
}

func at(domain string, names []string) []string {
	var list []string
	for _, n := range names {
		list = append(list, n+"@"+domain)
	}
	return list
}

// routeTo is a route for next.test.
func routeTo(address, more string) string {
	return fmt.Sprintf("route \"next\" {\n  domains = [\"next.test\"]\n  smarthost = %q\n  %s\n}\n", address, more)
}

// stored reads the mailboxes of the users as soon as each has what the samples send there.
func (p *postfix) stored(users []string, list []sample) []string {
	p.t.Helper()
	var all []string
	for _, u := range users {
		all = append(all, readMaildir(p.t, filepath.Join(p.dir, "mail", u), sentTo(u+"@next.test", list))...)
	}
	return all
}

// empty waits until our queue is.
func (s *site) empty() {
	s.t.Helper()
	c := admin.NewClient(filepath.Join(s.dir, "var/admin.sock"))
	var last string
	if !poll(func() bool {
		last = ""
		err := c.List(context.Background(), admin.Selection{}, func(m admin.Message) error {
			last = fmt.Sprintf("%+v", m)
			return nil
		})
		return err == nil && last == ""
	}) {
		s.t.Fatalf("the queue is not empty: %s", last)
	}
}

func TestInteropPostfixNextHop(t *testing.T) {
	for _, way := range []struct{ name, postfix, route, logged string }{
		{"plain", "", `tls = "none"`, "connect from"},
		{"tls", "smtpd_tls_security_level = encrypt\nsmtpd_tls_loglevel = 1\n", `tls = "require"`, "TLS connection established from"},
	} {
		t.Run(way.name, func(t *testing.T) {
			certificate := peerDir(t)
			writeCertificate(t, certificate)
			p := newPostfix(t, fmt.Sprintf("smtpd_tls_cert_file = %[1]s/cert.pem\nsmtpd_tls_key_file = %[1]s/key.pem\n%s",
				certificate, way.postfix), fifty()...)
			s := newSite(t, routeTo(p.address, way.route))
			list := samples(50, "ann@example.test", at("next.test", fifty()))
			hand(t, s.mx, "ann@example.test", list)
			sameSamples(t, list, p.stored(fifty(), list))
			s.empty()
			s.firstTime()
			contains(t, p.log(), way.logged)
			// How many connections there are is the scheduler's choice, but many messages must share one.
			if n := strings.Count(p.log(), "]: connect from "); n > len(list)/2 {
				t.Errorf("%d connections for %d messages", n, len(list))
			}
		})
	}
}

// A Postfix that takes 7 bits only gets 7 bits, and whoever decodes them sees what was sent.
func TestInteropPostfixSevenBit(t *testing.T) {
	interop(t, "python3")
	p := newPostfix(t, "smtpd_discard_ehlo_keywords = 8bitmime, chunking, smtputf8\n", fifty()...)
	s := newSite(t, routeTo(p.address, "tls = \"none\"\n  convert = [plugin.mime]"))
	list := samples(10, "ann@example.test", at("next.test", fifty()[:3]))
	hand(t, s.mx, "ann@example.test", list)
	for _, text := range p.stored(fifty()[:3], list) {
		i := numberOf(text)
		if !isASCII(text) {
			t.Errorf("sample %d is not 7-bit:\n%q", i, text)
		}
		if got, want := content(t, text), content(t, list[i].text); got != want {
			t.Errorf("sample %d reads\n%s\nnot\n%s", i, got, want)
		}
	}
	s.empty()
	s.firstTime()
}

// What Postfix refuses at RCPT is reported to the sender, who is one of ours; the other recipient gets the message.
func TestInteropPostfixRefuses(t *testing.T) {
	p := newPostfix(t, "", "known")
	s := newSite(t, routeTo(p.address, ""))
	list := samples(1, "ann@example.test", at("next.test", []string{"known", "unknown"}))
	hand(t, s.mx, "ann@example.test", list)
	report := s.mailbox("ann@example.test", 1)[0]
	contains(t, report, "Return-Path: <>", "multipart/report", "message/delivery-status",
		"Final-Recipient: rfc822; unknown@next.test", "Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550")
	if strings.Contains(report, "rfc822; known@next.test") {
		t.Errorf("the report names a recipient who got the message:\n%s", report)
	}
	readMaildir(t, filepath.Join(p.dir, "mail/known"), 1)
	s.empty()
}

// relayed starts a Postfix that sends everything to our mx listener.
func relayed(t *testing.T, s *site, more string) *postfix {
	t.Helper()
	return newPostfix(t, fmt.Sprintf("relayhost = [127.0.0.1]:%s\n%s", port(s.mx), more))
}

func TestInteropPostfixSends(t *testing.T) {
	for _, way := range []struct{ name, more, with string }{
		{"plain", "smtp_tls_security_level = none\n", "SMTP id"},
		{"tls", "smtp_tls_security_level = encrypt\n", "SMTPS id"},
	} {
		t.Run(way.name, func(t *testing.T) {
			interop(t, "postfix")
			needRoot(t)
			s := newSite(t, "")
			p := relayed(t, s, way.more)
			to := []string{"ann@example.test", "bob@example.test"}
			list := samples(50, "carol@sender.test", to)
			hand(t, p.address, "carol@sender.test", list)
			stored := append(s.mailbox(to[0], sentTo(to[0], list)), s.mailbox(to[1], sentTo(to[1], list))...)
			sameSamples(t, list, stored)
			s.firstTime()
			for _, text := range stored {
				if !strings.Contains(strings.Join(strings.Fields(text[:min(len(text), 2000)]), " "), way.with) {
					t.Fatalf("not received %s:\n%.2000s", way.with, text)
				}
			}
		})
	}
}

// A Postfix whose message we refuse bounces it, and its report reaches our user.
func TestInteropPostfixBouncesToUs(t *testing.T) {
	interop(t, "postfix")
	needRoot(t)
	s := newSite(t, "")
	p := relayed(t, s, "smtp_tls_security_level = may\n")
	hand(t, p.address, "ann@example.test", samples(1, "ann@example.test", []string{"nobody@example.test"}))
	report := s.mailbox("ann@example.test", 1)[0]
	contains(t, report, "Return-Path: <>", "MAILER-DAEMON@postfix.test", "Final-Recipient: rfc822; nobody@example.test",
		"Status: 5.1.1", "X-Interop: 0")
	s.empty()
}

// Postfix takes what comes in one write with the end of a message, though it throws out clients that send before their turn.
func TestInteropPostfixInARow(t *testing.T) {
	p := newPostfix(t, "smtpd_forbid_unauth_pipelining = yes\nsmtpd_forbid_bare_newline = yes\n", "ann")
	d := deliver.New(deliver.Options{Hostname: "mx.example.test", Ways: map[string]deliver.Way{
		"next": {Kind: deliver.KindSmarthost, Hosts: []string{p.address}, TLS: tlspolicy.None}}})
	defer d.Close(t.Context())
	list := make([]deliver.Job, 30)
	asked := 0
	for i := range list {
		j := &list[i]
		*j = deliver.Job{ID: fmt.Sprint(i), Route: "next", Attempt: 1, Content: mail.Bytes([]byte("Subject: x\r\n\r\n.x\r\n"))}
		j.Envelope.From = mail.MustParseAddress("ann@example.test")
		j.Envelope.To = []mail.Recipient{{Address: mail.MustParseAddress("ann@next.test")}}
		j.Next = func() *deliver.Job {
			asked++
			if i+1 < len(list) {
				return &list[i+1]
			}
			return nil
		}
	}
	for i := range list {
		if o := d.Attempt(t.Context(), &list[i])[0]; o.Class != deliver.Delivered {
			t.Fatalf("message %d: %s, %v", i, o.Reply, o.Err)
		}
	}
	if n := strings.Count(p.log(), "]: connect from "); n > 2 || asked < len(list)/2 { // the first one asked whether it is there
		t.Errorf("%d connections, %d were begun behind others", n, asked)
	}
	readMaildir(t, filepath.Join(p.dir, "mail/ann"), len(list))
}
