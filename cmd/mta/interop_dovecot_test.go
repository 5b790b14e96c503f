//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dovecot is a Dovecot of our own: IMAP at an address, LMTP on a socket.
type dovecot struct {
	t              testing.TB
	dir, imap, log string
	socket         string // LMTP
}

// Its processes may not run as root, so they run as the user who owns the Maildirs that our plugin writes.
const dovecotConf = `
base_dir = ${DIR}/run
state_dir = ${DIR}/state
log_path = ${DIR}/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:${MAIL}/%d/%n
${PASSDB}
userdb {
  driver = passwd-file
  args = ${DIR}/accounts
}
service imap-login {
  inet_listener imap {
    port = ${PORT}
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  unix_listener ${DIR}/lmtp {
    mode = 0666
  }
}
service auth {
  unix_listener auth-userdb {
    mode = 0600
  }
}
protocol lmtp {
  auth_socket_path = ${DIR}/run/auth-userdb
}
`

// newDovecot starts a Dovecot whose mailboxes are below a folder, with these accounts.
func newDovecot(t testing.TB, mail string, accounts ...string) *dovecot {
	t.Helper()
	return startDovecot(t, mail, "passdb {\n  driver = passwd-file\n  args = ${DIR}/accounts\n}\n", accounts...)
}

func startDovecot(t testing.TB, mail, passdb string, accounts ...string) *dovecot {
	t.Helper()
	interop(t, "dovecot", "python3")
	needRoot(t)
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		t.Skip("dovecot-lmtpd is not installed")
	}
	d := &dovecot{t: t, dir: peerDir(t), imap: freeAddress(t)}
	d.socket, d.log = filepath.Join(d.dir, "lmtp"), filepath.Join(d.dir, "log")
	if mail == "" {
		mail = filepath.Join(d.dir, "mail")
	}
	text := os.Expand(strings.Replace(dovecotConf, "${PASSDB}", passdb, 1), func(name string) string {
		return map[string]string{"DIR": d.dir, "MAIL": mail, "PORT": port(d.imap)}[name]
	})
	write(t, filepath.Join(d.dir, "conf"), text)
	owner := nobody(t)
	if err := os.MkdirAll(mail, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mail, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, a := range accounts {
		fmt.Fprintf(&list, "%s:{PLAIN}%s:%d:%d::%s::\n", a, secret, owner.Uid, owner.Gid, d.dir)
	}
	write(t, filepath.Join(d.dir, "accounts"), list.String())
	t.Cleanup(func() { showLog(t, d.log) })
	daemon(t, exec.Command("dovecot", "-F", "-c", filepath.Join(d.dir, "conf")), filepath.Join(d.dir, "out"))
	if !poll(func() bool { return answers("tcp", d.imap) && answers("unix", d.socket) }) {
		t.Fatal("Dovecot does not greet")
	}
	return d
}

// answers reports whether a server greets.
func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	line, err := newLines(conn).next()
	return err == nil && line != ""
}

// Dovecot shows the Maildirs that our plugin writes: every octet, new mail as it comes, and flags that we leave alone.
func TestInteropDovecotIMAP(t *testing.T) {
	interop(t, "dovecot", "python3")
	needRoot(t)
	s := newSite(t, "")
	d := newDovecot(t, filepath.Join(s.dir, "mail"), "ann@example.test")
	list := samples(6, "carol@sender.test", []string{"ann@example.test"})
	hand(t, s.mx, "carol@sender.test", list[:5])
	s.mailbox("ann@example.test", 5)

	// imap.py prints a line when it wants the next message, and then what it fetched as files.
	out := filepath.Join(s.dir, "fetched")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "testdata/interop/imap.py", d.imap, "ann@example.test", secret, "5", out)
	told, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := newLines(told).next()
	if line != "ready" {
		cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("%q, %v: %s", line, err, &problems)
	}
	hand(t, s.mx, "carol@sender.test", list[5:])
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &problems)
	}
	fetched, _ := filepath.Glob(filepath.Join(out, "*"))
	var texts []string
	for _, f := range fetched {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, strings.ReplaceAll(string(b), "\r\n", "\n"))
	}
	sameSamples(t, list, texts)
	stored := strings.Join(s.mailbox("ann@example.test", 6), "\x00")
	for _, text := range texts {
		if !strings.Contains(stored, text) {
			t.Errorf("sample %d was fetched otherwise than it is stored", numberOf(text))
		}
	}
	if f, _ := filepath.Glob(filepath.Join(s.dir, "mail/example.test/ann/cur/*:2,*FS*")); len(f) != 1 {
		t.Errorf("%d messages are flagged and seen", len(f))
	}
}

// Dovecot as a next hop: what it takes is there unchanged, and what it refuses at RCPT is reported to the sender.
func TestInteropDovecotLMTP(t *testing.T) {
	d := newDovecot(t, "", "kim@lmtp.test", "lee@lmtp.test")
	s := newSite(t, fmt.Sprintf("route \"dovecot\" {\n  domains = [\"lmtp.test\"]\n  lmtp = \"unix:%s\"\n}\n", d.socket))
	to := []string{"kim@lmtp.test", "lee@lmtp.test"}
	list := samples(20, "ann@example.test", to)
	// A line far longer than RFC 5322, 2.1.1 allows, as real programs send it.
	list[0].text += strings.Repeat("long ", 4000) + "\n"
	hand(t, s.mx, "ann@example.test", list)
	var stored []string
	for _, address := range to {
		local, domain, _ := strings.Cut(address, "@")
		stored = append(stored, readMaildir(t, filepath.Join(d.dir, "mail", domain, local), sentTo(address, list))...)
	}
	sameSamples(t, list, stored)
	s.firstTime()

	unknown := samples(1, "ann@example.test", []string{"park@lmtp.test"})
	hand(t, s.mx, "ann@example.test", unknown)
	report := s.mailbox("ann@example.test", 1)[0]
	contains(t, report, "Final-Recipient: rfc822; park@lmtp.test", "Action: failed", "Status: 5.1.1", "550 5.1.1")
	s.empty()
}

// A Dovecot that passes mail on speaks LMTP to us, in BDAT chunks because we offer CHUNKING.
func TestInteropDovecotProxy(t *testing.T) {
	lmtp := freeAddress(t)
	interop(t, "dovecot", "python3")
	needRoot(t)
	s := newSite(t, fmt.Sprintf("listener \"lmtp\" {\n  address = [%q]\n  protocol = \"lmtp\"\n}\n", lmtp))
	raw := peerDir(t)
	if err := os.Chmod(raw, 0o777); err != nil {
		t.Fatal(err)
	}
	d := startDovecot(t, "", fmt.Sprintf("lmtp_proxy = yes\nlmtp_proxy_rawlog_dir = %s\npassdb {\n  driver = static\n"+
		"  args = proxy=y nopassword=y host=127.0.0.1 port=%s\n}\n", raw, port(lmtp)))
	to := []string{"ann@example.test", "bob@example.test"}
	list := samples(10, "carol@sender.test", to)
	for _, l := range list {
		for _, address := range l.to {
			runPython(t, "lmtp.py", l.text, d.socket, "carol@sender.test", address)
		}
	}
	sameSamples(t, list, append(s.mailbox(to[0], sentTo(to[0], list)), s.mailbox(to[1], sentTo(to[1], list))...))
	var dialogues strings.Builder
	logs, _ := filepath.Glob(filepath.Join(raw, "*"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		dialogues.Write(b)
	}
	contains(t, dialogues.String(), "LHLO ", "BDAT ")
}

// We log in at a smarthost: a Postfix that asks a Dovecot whether the password is right, and takes nothing without it.
func TestInteropPostfixLogin(t *testing.T) {
	dir := peerDir(t)
	startDovecot(t, "", fmt.Sprintf("passdb {\n  driver = passwd-file\n  args = ${DIR}/accounts\n}\n"+
		"service auth {\n  unix_listener %s/sasl {\n    mode = 0666\n  }\n}\n", dir), "relay@example.test")
	writeCertificate(t, dir)
	p := newPostfix(t, fmt.Sprintf("smtpd_tls_cert_file = %[1]s/cert.pem\nsmtpd_tls_key_file = %[1]s/key.pem\n"+
		"smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"+
		"smtpd_sasl_path = %[1]s/sasl\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n", dir), "kim")
	write(t, filepath.Join(dir, "password"), secret)
	login := fmt.Sprintf("tls = \"require\"\n  user = \"relay@example.test\"\n  password = file(%q)", filepath.Join(dir, "password"))
	s := newSite(t, routeTo(p.address, login))
	list := samples(3, "ann@example.test", []string{"kim@next.test"})
	hand(t, s.mx, "ann@example.test", list)
	sameSamples(t, list, p.stored([]string{"kim"}, list))
	s.firstTime()
	contains(t, p.log(), "sasl_username=relay@example.test")
}
