//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bobsLetters hands bob letters of many kinds and waits until they are there.
func bobsLetters(t *testing.T, s *site, n int) []sample {
	t.Helper()
	list := samples(n, "carol@sender.test", []string{"bob@example.test"})
	hand(t, s.mx, "carol@sender.test", list)
	s.mailbox("bob@example.test", n)
	return list
}

// filesIn reads the files of some folders, with LF.
func filesIn(t *testing.T, patterns ...string) (texts []string) {
	t.Helper()
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, strings.ReplaceAll(string(b), "\r\n", "\n"))
		}
	}
	return texts
}

// mbsync keeps a Maildir of ours and a mailbox the same, both ways: mail, flags, folders and what is removed.
func TestInteropMbsync(t *testing.T) {
	interop(t, "mbsync")
	s := newSite(t, "")
	list := bobsLetters(t, s, 8)
	local := filepath.Join(s.dir, "local")
	if err := os.MkdirAll(local, 0o700); err != nil {
		t.Fatal(err)
	}
	rc := filepath.Join(s.dir, "mbsyncrc")
	write(t, rc, fmt.Sprintf(`IMAPAccount bob
Host localhost
Port %s
User bob@example.test
Pass "%s"
SSLType STARTTLS
CertificateFile %s/cert.pem

IMAPStore there
Account bob

MaildirStore here
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :there:
Near :here:
Patterns *
Create Both
Remove Both
Expunge Both
Sync All
SyncState *
CopyArrivalDate yes
`, port(s.imap), secret, s.dir, local, local))
	sync := func() { mustRun(t, exec.Command("mbsync", "-c", rc, "-a")) }
	sync()
	here := filesIn(t, local+"/INBOX/new/*", local+"/INBOX/cur/*")
	for i, text := range here { // it marks its copies
		here[i] = regexp.MustCompile(`(?m)^X-TUID: .*\n`).ReplaceAllString(text, "")
	}
	sameSamples(t, list, here)

	// What is done here is seen there: a letter read and flagged, one removed, one written in a folder of its own.
	first, gone := fileOf(t, local, 0), fileOf(t, local, 1)
	base, _, _ := strings.Cut(filepath.Base(first), ":")
	rename(t, first, filepath.Join(local, "INBOX/cur", base+":2,FS"))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(local, "일거리", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(local, "일거리/cur/1.mine.host:2,S"), "Subject: mine\n\nwritten here\n")
	sync()
	mailbox := filepath.Join(s.dir, "mail/example.test/bob")
	if f, _ := filepath.Glob(mailbox + "/cur/*:2,FS"); len(f) != 1 {
		t.Errorf("%d letters are flagged and read", len(f))
	}
	left := filesIn(t, mailbox+"/new/*", mailbox+"/cur/*")
	if len(left) != len(list)-1 || slices.ContainsFunc(left, func(text string) bool { return numberOf(text) == 1 }) {
		t.Errorf("%d letters are there, or the one that was removed here", len(left))
	}
	mine := filesIn(t, mailbox+"/.*/cur/*")
	if len(mine) != 1 || !strings.HasSuffix(mine[0], "written here\n") {
		t.Errorf("the letter in the new folder: %q", mine)
	}

	// And the other way: new mail, and a flag that mta mail sets.
	more := samples(9, "carol@sender.test", []string{"bob@example.test"})[8:]
	hand(t, s.mx, "carol@sender.test", more)
	if !poll(func() bool { return len(filesIn(t, mailbox+"/new/*", mailbox+"/cur/*")) == len(list) }) {
		t.Fatal("the new letter does not come")
	}
	flag := s.mail("bob@example.test", "flag", "3", "-set", "answered")
	mustRun(t, flag)
	sync()
	if f, _ := filepath.Glob(local + "/INBOX/cur/*:2,R*"); len(f) != 1 {
		t.Errorf("%d letters are answered here", len(f))
	}
	if n := len(filesIn(t, local+"/INBOX/new/*", local+"/INBOX/cur/*")); n != len(list) {
		t.Errorf("%d letters are here", n)
	}
	if out := mustRun(t, exec.Command("mbsync", "-c", rc, "-a", "-V")); strings.Contains(out, "rror") {
		t.Error(out)
	}
}

// fileOf finds the file of a sample.
func fileOf(t *testing.T, local string, number int) string {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		found, _ := filepath.Glob(filepath.Join(local, "INBOX", sub, "*"))
		for _, f := range found {
			if b, err := os.ReadFile(f); err == nil && numberOf(string(b)) == number {
				return f
			}
		}
	}
	t.Fatalf("sample %d is not here", number)
	return ""
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// mail prepares `mta mail` for an account of the site.
func (s *site) mail(user string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append([]string{"mail"}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "HOME="+s.dir, "SSL_CERT_FILE="+filepath.Join(s.dir, "cert.pem"),
		"MTA_MAIL_USER="+user, "MTA_PASSWORD="+secret, "MTA_MAIL_TLS=starttls",
		"MTA_MAIL_IMAP=localhost:"+port(s.imap), "MTA_MAIL_SUBMIT=localhost:"+port(s.submission))
	return cmd
}

// fetchmail takes all mail away, by IMAP and by POP3, with TLS each way.
func TestInteropFetchmail(t *testing.T) {
	interop(t, "fetchmail")
	s := newSite(t, "")
	for i, way := range []struct{ protocol, address, tls string }{
		{"IMAP", s.imap, `sslproto "TLS1.2+"`}, {"IMAP", s.imaps, "ssl"}, {"POP3", s.pop3, `sslproto "TLS1.2+"`}, {"POP3", s.pop3s, "ssl"},
	} {
		list := bobsLetters(t, s, 5)
		dir := filepath.Join(s.dir, fmt.Sprintf("fetched%d", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		rc := filepath.Join(dir, "rc")
		write(t, rc, fmt.Sprintf("poll localhost protocol %s port %s user \"bob@example.test\" password \"%s\" %s sslcertck sslcertfile \"%s/cert.pem\"\n"+
			"  fetchall no keep mda \"/bin/sh -c 'cat > %s/$$.letter'\"\n", way.protocol, port(way.address), secret, way.tls, s.dir, dir))
		if err := os.Chmod(rc, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("fetchmail", "-f", rc, "--nodetach", "--nosyslog", "--pidfile", filepath.Join(dir, "pid"), "--idfile", filepath.Join(dir, "ids"))
		cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir)
		mustRun(t, cmd)
		got := filesIn(t, dir+"/*.letter")
		if len(got) != len(list) {
			t.Errorf("%s: %d letters were fetched, not %d", way.protocol, len(got), len(list))
		}
		s.mailbox("bob@example.test", 0)
		for j, text := range got { // it adds a Received and ends what has no line end
			got[j] = strings.TrimRight(text, "\n") + "\n"
		}
		sameSamples(t, list, got)
	}
}

// curl lists, fetches, searches, uploads and stores flags by IMAP, and fetches by POP3.
func TestInteropCurlMailbox(t *testing.T) {
	interop(t, "curl")
	s := newSite(t, "")
	list := bobsLetters(t, s, 3)
	curl := func(args ...string) string {
		return mustRun(t, exec.Command("curl", append([]string{"-sS", "--ssl-reqd", "--cacert", filepath.Join(s.dir, "cert.pem"), "--user", "bob@example.test:" + secret}, args...)...))
	}
	for _, base := range []string{"imap://localhost:" + port(s.imap), "imaps://localhost:" + port(s.imaps)} {
		contains(t, curl(base), `* LIST (\HasNoChildren) "." INBOX`, `\Sent`)
		contains(t, curl(base+"/INBOX?SUBJECT%20sample"), "* SEARCH 1 2 3")
		if got := strings.ReplaceAll(curl(base+"/INBOX;UID=2"), "\r\n", "\n"); !strings.HasSuffix(got, list[1].text) {
			t.Errorf("%s: %q", base, got)
		}
		contains(t, curl(base+"/INBOX;MAILINDEX=1;SECTION=HEADER.FIELDS%20(SUBJECT)"), "Subject: sample 0")
		letter := filepath.Join(s.dir, "mine")
		write(t, letter, "Subject: mine\r\n\r\nx\r\n")
		curl(base+"/Drafts", "-T", letter)
		contains(t, curl(base+"/INBOX", "-X", `STORE 3 +FLAGS (\Flagged)`), `FLAGS`)
	}
	if got := filesIn(t, s.dir+"/mail/example.test/bob/.Drafts/cur/*"); len(got) != 2 {
		t.Errorf("%d letters were uploaded", len(got))
	}
	for _, base := range []string{"pop3://localhost:" + port(s.pop3), "pop3s://localhost:" + port(s.pop3s)} {
		if got := strings.ReplaceAll(curl(base+"/3"), "\r\n", "\n"); !strings.HasSuffix(got, list[2].text) {
			t.Errorf("%s: %q", base, got)
		}
		if n := strings.Count(curl(base), "\n"); n != 3 {
			t.Errorf("%s lists %d letters", base, n)
		}
	}
}

// Clients in JavaScript: nodemailer sends, imapflow reads.
func TestInteropNode(t *testing.T) {
	interop(t, "node")
	modules := os.Getenv("MTA_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(modules, "imapflow")); modules == "" || err != nil {
		t.Skip("imapflow and nodemailer are not installed (MTA_NODE_MODULES)")
	}
	s := newSite(t, "")
	cmd := exec.Command("node", "testdata/interop/node/clients.mjs", s.submission, s.imaps, filepath.Join(s.dir, "cert.pem"), secret)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	if out := mustRun(t, cmd); out != "ok\n" {
		t.Error(out)
	}
}

// What Thunderbird is told leads to servers that let people in, in the way that they are told.
func TestInteropAutoconfig(t *testing.T) {
	interop(t, "python3")
	web := freeAddress(t)
	s := newSite(t, fmt.Sprintf("admin {\n  listen = %q\n}\n", web))
	for _, path := range []string{"/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/config-v1.1.xml"} {
		got := runPython(t, "autoconfig.py", "", "http://"+web+path, "ann@example.test", secret, filepath.Join(s.dir, "cert.pem"))
		if want := "imap SSL\nimap STARTTLS\npop3 SSL\npop3 STARTTLS\nsmtp SSL\nsmtp STARTTLS\n"; got != want {
			t.Errorf("%s leads to\n%s", path, got)
		}
	}
}

// The records name the key that the server shows.
func TestInteropTLSA(t *testing.T) {
	interop(t, "openssl")
	s := newSite(t, "")
	want := mustRun(t, exec.Command("/bin/sh", "-c", "openssl x509 -in "+filepath.Join(s.dir, "cert.pem")+
		" -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1"))
	contains(t, mustRun(t, s.command("dns")), "_25._tcp.mta.example.test.", "IN TLSA  3 1 1 "+strings.TrimSpace(want))
}

// A disk without room: mail waits in the queue, what is there can be read, an APPEND is refused in words, and all goes on
// when there is room again.
func TestInteropFullDisk(t *testing.T) {
	interop(t, "mount", "curl")
	needRoot(t)
	s := newSite(t, "")
	mail := filepath.Join(s.dir, "mail")
	if err := os.MkdirAll(mail, 0o700); err != nil {
		t.Fatal(err)
	}
	small := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=1200k,mode=0700,uid=%d,gid=%d", s.owner.Uid, s.owner.Gid), "tmpfs", mail)
	if out, err := small.CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %v, %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", mail).Run() }) // the folder is removed after it
	first := bobsLetters(t, s, 2)
	mustRun(t, s.mail("bob@example.test", "list")) // numbers are written down before they are shown
	ballast := filepath.Join(mail, "ballast")
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=1k").CombinedOutput(); err == nil {
		t.Fatalf("the disk has no end: %s", out)
	}
	more := samples(4, "carol@sender.test", []string{"bob@example.test"})[2:]
	hand(t, s.mx, "carol@sender.test", more)
	if !poll(func() bool { return strings.Contains(mustRun(t, s.command("queue", "list")), "452") }) {
		t.Errorf("the queue: %s", mustRun(t, s.command("queue", "list")))
	}
	if out := mustRun(t, s.mail("bob@example.test", "list")); strings.Count(out, "\n") != 2 {
		t.Errorf("what is there can't be listed: %s", out)
	}
	if got := mustRun(t, s.mail("bob@example.test", "read", "1", "-raw", "-peek")); !strings.HasSuffix(strings.ReplaceAll(got, "\r\n", "\n"), first[0].text) {
		t.Errorf("what is there can't be read: %s", got)
	}
	letter := filepath.Join(s.dir, "mine")
	write(t, letter, "Subject: mine\r\n\r\n"+strings.Repeat("x\r\n", 2000))
	out, status := runClient(t, exec.Command("curl", "-sSv", "--ssl-reqd", "--cacert", filepath.Join(s.dir, "cert.pem"), "--user", "bob@example.test:"+secret,
		"imaps://localhost:"+port(s.imaps)+"/Drafts", "-T", letter))
	if status == 0 || !strings.Contains(out, "NO [OVERQUOTA]") {
		t.Errorf("APPEND: %d, %s", status, out)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	sameSamples(t, append(first, more...), s.mailbox("bob@example.test", 4))
}
