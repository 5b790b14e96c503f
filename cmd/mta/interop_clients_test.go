//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bytesFile writes a file of every kind of octet and returns its path and content.
func bytesFile(t *testing.T, dir string, n int) (string, []byte) {
	t.Helper()
	content := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(content)
	path := filepath.Join(dir, "picture.png")
	write(t, path, string(content))
	return path, content
}

// runPython runs a script of testdata/interop, which gets the message on standard input.
func runPython(t *testing.T, script, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command("python3", append([]string{filepath.Join("testdata/interop", script)}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	return mustRun(t, cmd)
}

func TestInteropSwaks(t *testing.T) {
	interop(t, "swaks")
	s := newSite(t, "")
	implicit := []string{"--tls-on-connect", "--server", "localhost", "--port", port(s.submissions)}
	starttls := []string{"--tls", "--server", "localhost", "--port", port(s.submission)}
	swaks := func(args ...string) (string, int) {
		return runClient(t, exec.Command("swaks", append(args, "--to", "bob@example.test", "--timeout", "20")...))
	}
	for i, way := range []struct {
		how []string
		tls []string
	}{{[]string{"PLAIN"}, implicit}, {[]string{"LOGIN"}, implicit}, {[]string{"PLAIN"}, starttls}, {[]string{"LOGIN"}, starttls}} {
		login := append([]string{"--auth", way.how[0], "--auth-user", "ann@example.test"}, way.tls...)
		subject := fmt.Sprintf("swaks %d", i)
		out, status := swaks(append(login, "--auth-password", secret, "--from", "ann@example.test", "--header", "Subject: "+subject)...)
		if status != 0 {
			t.Fatalf("%v: status %d:\n%s", way, status, out)
		}
		contains(t, out, "235 2.7.0", "250 2.0.0 queued as")
		contains(t, strings.Join(s.mailbox("bob@example.test", i+1), ""), "Subject: "+subject, "SMTPSA id")

		if out, _ = swaks(append(login, "--auth-password", "wrong", "--from", "ann@example.test")...); !strings.Contains(out, "535 5.7.8") {
			t.Errorf("a wrong password:\n%s", out)
		}
		out, _ = swaks(append(login, "--auth-password", secret, "--from", "bob@example.test")...)
		if strings.Contains(out, "queued as") || !strings.Contains(out, "5.7.1") {
			t.Errorf("a sender who is someone else:\n%s", out)
		}
	}
	// Without TLS there is no AUTH, and without AUTH nothing is taken.
	out, status := swaks("--server", "localhost", "--port", port(s.submission), "--from", "ann@example.test")
	if status == 0 || !strings.Contains(out, "530 ") {
		t.Errorf("no login: status %d:\n%s", status, out)
	}
	s.mailbox("bob@example.test", 4)
}

func TestInteropPython(t *testing.T) {
	interop(t, "python3")
	s := newSite(t, "")
	s.addAccount("파발@example.test")
	file, _ := bytesFile(t, s.dir, 200_000)
	// The script prints what content.py shall see: in what was sent, and so in what is stored.
	sent := runPython(t, "send.py", "", s.submission, filepath.Join(s.dir, "cert.pem"), "ann@example.test", secret, file, "bob@example.test")
	stored := s.mailbox("bob@example.test", 1)[0]
	if got := content(t, stored); got != sent {
		t.Errorf("stored is\n%s\nsent was\n%s", got, sent)
	}
	contains(t, sent, "subject: 안녕하세요, 파발입니다", "text/html", "image/png", "picture.png")

	// An address beyond ASCII, of the recipient and of the sender.
	sent = runPython(t, "send.py", "", s.submission, filepath.Join(s.dir, "cert.pem"), "파발@example.test", secret, file, "파발@example.test")
	stored = s.mailbox("파발@example.test", 1)[0]
	if got := content(t, stored); got != sent {
		t.Errorf("stored is\n%s\nsent was\n%s", got, sent)
	}
	contains(t, stored, "To: 파발@example.test", "Return-Path: <파발@example.test>", "with UTF8SMTPSA id")
}

func TestInteropMsmtp(t *testing.T) {
	interop(t, "msmtp")
	s := newSite(t, "")
	common := []string{"--file=/dev/null", "--host=localhost", "--tls=on", "--tls-trust-file=" + filepath.Join(s.dir, "cert.pem"),
		"--user=ann@example.test", "--passwordeval=echo " + secret, "--from=ann@example.test"}
	ways := [][]string{
		{"--port=" + port(s.submission), "--tls-starttls=on", "--auth=plain"},
		{"--port=" + port(s.submissions), "--tls-starttls=off", "--auth=login"},
	}
	for i, way := range ways {
		text := fmt.Sprintf("From: ann@example.test\nTo: bob@example.test\nSubject: msmtp %d\n\n.\n..\n안녕\n", i)
		cmd := exec.Command("msmtp", append(append(way, common...), "bob@example.test")...)
		cmd.Stdin = strings.NewReader(text)
		mustRun(t, cmd)
		contains(t, strings.Join(s.mailbox("bob@example.test", i+1), "\n"), text)
	}
}

func TestInteropCurl(t *testing.T) {
	interop(t, "curl")
	s := newSite(t, "")
	const text = "From: ann@example.test\r\nTo: bob@example.test\r\nSubject: curl\r\n\r\n.\r\na line\r\n"
	letter := filepath.Join(s.dir, "letter")
	write(t, letter, text)
	for i, url := range []string{"smtps://localhost:" + port(s.submissions), "smtp://localhost:" + port(s.submission)} {
		mustRun(t, exec.Command("curl", "-sS", "--url", url, "--ssl-reqd", "--cacert", filepath.Join(s.dir, "cert.pem"),
			"--user", "ann@example.test:"+secret, "--mail-from", "ann@example.test", "--mail-rcpt", "bob@example.test", "-T", letter))
		for _, stored := range s.mailbox("bob@example.test", i+1) {
			contains(t, stored, strings.ReplaceAll(text, "\r\n", "\n"))
		}
	}
}

// mutt sends an attachment through our submission, and then reads it, and saves it, from the Maildir.
func TestInteropMutt(t *testing.T) {
	interop(t, "mutt", "script", "python3")
	s := newSite(t, "")
	file, _ := bytesFile(t, s.dir, 50_000)
	rc := filepath.Join(s.dir, "muttrc")
	write(t, rc, fmt.Sprintf(`set smtp_url="smtp://ann%%40example.test@localhost:%s/" smtp_pass="%s" smtp_authenticators="plain"
set ssl_starttls=yes ssl_force_tls=yes ssl_ca_certificates_file=%s/cert.pem ssl_verify_host=yes
set from=ann@example.test use_from=yes use_envelope_from=yes realname="Ann 파발" copy=no charset=utf-8 send_charset=utf-8
set folder=%s mbox_type=Maildir wait_key=no move=no quit=yes mark_old=no sleep_time=0 header_cache=""
`, port(s.submission), secret, s.dir, s.dir))
	env := append(os.Environ(), "HOME="+s.dir, "TERM=xterm", "LC_ALL=C.UTF-8")
	send := exec.Command("mutt", "-n", "-F", rc, "-s", "mutt 안녕", "-a", file, "--", "bob@example.test")
	send.Stdin, send.Env = strings.NewReader("본문입니다.\n.\n"), env
	mustRun(t, send)
	stored := s.mailbox("bob@example.test", 1)[0]
	contains(t, stored, "본문입니다.\n.\n")

	out := filepath.Join(s.dir, "read")
	push := fmt.Sprintf("set pipe_decode=yes; push \"<display-message><exit><pipe-message>cat > %s<enter><view-attachments><next-entry><save-entry><kill-line>%s.saved<enter><exit><quit>\"", out, file)
	read := exec.Command("script", "-qec", fmt.Sprintf("mutt -n -F %s -f %s/mail/example.test/bob -e '%s'", rc, s.dir, push), "/dev/null")
	read.Env = env
	screen := mustRun(t, read)
	shown, err := os.ReadFile(out)
	if err != nil {
		t.Fatalf("%v; the screen:\n%q", err, screen)
	}
	contains(t, string(shown), "From: Ann 파발 <ann@example.test>", "Subject: mutt 안녕", "본문입니다.")
	sent, _ := os.ReadFile(file)
	saved, err := os.ReadFile(file + ".saved")
	if err != nil || string(saved) != string(sent) {
		t.Errorf("the attachment is not what was sent: %v, %d bytes", err, len(saved))
	}
	// mutt has read it, so the message is in cur now, and marked as seen.
	if seen, _ := filepath.Glob(filepath.Join(s.dir, "mail/example.test/bob/cur/*:2,*S*")); len(seen) != 1 {
		t.Errorf("%d messages are marked as seen", len(seen))
	}
}
