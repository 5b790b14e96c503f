//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/admin"
)

// The TestInterop tests run our program beside real peers: Postfix, Dovecot, swaks, msmtp, mutt, curl and Python. They are
// skipped, with a reason, unless MTA_INTEROP=1 and the peer is installed; .ci/interop installs them. Everything is on
// loopback, below a folder of its own in /tmp, and each process dies with this one.

// interop skips the test unless these programs may be used.
func interop(t testing.TB, programs ...string) {
	t.Helper()
	if os.Getenv("MTA_INTEROP") != "1" {
		t.Skip("needs real peers: MTA_INTEROP is not 1")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// needRoot skips the test where peers can't be started as the users that they want.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to start a peer that changes its user")
	}
}

// site is our program at work with a configuration of its own, and the accounts ann and bob.
type site struct {
	t       testing.TB
	dir     string
	program string
	owner   *syscall.Credential // whom the program runs as; nil is who runs the test

	// What listens where: host:port. Those with an s want TLS from the first byte.
	mx, submission, submissions string
	imap, imaps, pop3, pop3s    string
}

// secret is the password of every account here.
const secret = "pass word-1"

const siteConfig = `
hostname = "mta.example.test"
domains  = ["example.test"]
data_dir = "var"

tls "own" {
  cert_file = "cert.pem"
  key_file  = "key.pem"
}

listener "mx" {
  address = ["${MX}"]
  tls     = tls.own
  limits { connections_per_ip = 100 }
}

listener "submission" {
  address = ["${SUBMISSION}"]
  tls     = tls.own
  auth    = plugin.users
}

listener "submissions" {
  address  = ["${SUBMISSIONS}"]
  tls      = tls.own
  implicit = true
  auth     = plugin.users
}

plugin "users" {
  source = "builtin:users"
  config { file = "users" }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  auth   = plugin.users
  config {
    path     = "mail/{domain}/{user}"
    accounts = "users"
    imap {
      address   = ["${IMAP}"]
      cert_file = "cert.pem"
      key_file  = "key.pem"
    }
    imap {
      address   = ["${IMAPS}"]
      implicit  = true
      cert_file = "cert.pem"
      key_file  = "key.pem"
    }
    pop3 {
      address   = ["${POP3}"]
      cert_file = "cert.pem"
      key_file  = "key.pem"
    }
    pop3 {
      address   = ["${POP3S}"]
      implicit  = true
      cert_file = "cert.pem"
      key_file  = "key.pem"
    }
  }
}

plugin "mime" { source = "builtin:mime" }

plugin "bounces" { source = "builtin:bounces" }

route "local" {
  domains = domains
  store   = plugin.mailboxes
  convert = [plugin.mime]
}

bounce { notify = [plugin.bounces] }

queue {
  retry    = ["1s"]
  min_free = "64MiB"
}
`

// newSite starts our program. More is added to its configuration: a route, a listener.
func newSite(t testing.TB, more string) *site {
	t.Helper()
	p := freePorts(t, 7)
	s := &site{t: t, dir: peerDir(t), mx: p[0], submission: p[1], submissions: p[2], imap: p[3], imaps: p[4], pop3: p[5], pop3s: p[6]}
	s.program = filepath.Join(s.dir, "mta")
	s.owner = nobody(t)
	takeProgram(t, s.program)
	writeCertificate(t, s.dir)
	text := os.Expand(siteConfig, func(name string) string {
		return map[string]string{
			"MX": s.mx, "SUBMISSION": s.submission, "SUBMISSIONS": s.submissions,
			"IMAP": s.imap, "IMAPS": s.imaps, "POP3": s.pop3, "POP3S": s.pop3s,
		}[name]
	})
	write(t, filepath.Join(s.dir, "mta.hcl"), text+more)
	s.own()
	for _, name := range []string{"ann@example.test", "bob@example.test"} {
		s.addAccount(name)
	}
	daemon(t, s.command("serve", "-log", "text"), filepath.Join(s.dir, "log"))
	c := admin.NewClient(filepath.Join(s.dir, "var/admin.sock"))
	ready := poll(func() bool {
		st, err := c.Status(context.Background())
		return err == nil && st.Ready == "ok"
	})
	if !ready {
		t.Fatal("our server is not ready")
	}
	return s
}

// own gives the folder to the user that the program runs as.
func (s *site) own() {
	if s.owner == nil {
		return
	}
	err := filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == s.program {
			return err
		}
		return os.Lchown(path, int(s.owner.Uid), int(s.owner.Gid))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append(args, "-config", filepath.Join(s.dir, "mta.hcl"))...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "HOME="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	return cmd
}

func (s *site) addAccount(name string) {
	s.t.Helper()
	cmd := s.command("user", "add", name)
	cmd.Stdin = strings.NewReader(secret + "\n")
	mustRun(s.t, cmd)
}

// mailbox returns the messages of a user, whatever their order, as soon as there are n; it fails when there never are.
func (s *site) mailbox(name string, n int) []string {
	s.t.Helper()
	local, domain, _ := strings.Cut(name, "@")
	return readMaildir(s.t, filepath.Join(s.dir, "mail", domain, local), n)
}

// firstTime fails the test when a message needed more than one attempt.
func (s *site) firstTime() {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "msg=attempt") && (!strings.Contains(line, "class=delivered") || !strings.Contains(line, " attempt=1 ")) {
			s.t.Errorf("an attempt has failed: %s", line)
		}
	}
}

// port returns the port of an address.
func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// readMaildir waits for n messages in a Maildir and reads them.
func readMaildir(t testing.TB, dir string, n int) []string {
	t.Helper()
	var files []string
	if !poll(func() bool {
		fresh, _ := filepath.Glob(filepath.Join(dir, "new", "*"))
		seen, _ := filepath.Glob(filepath.Join(dir, "cur", "*"))
		files = append(fresh, seen...)
		return len(files) >= n
	}) {
		t.Fatalf("%d messages in %s, not %d", len(files), dir, n)
	}
	if len(files) > n {
		t.Fatalf("%d messages in %s, not %d", len(files), dir, n)
	}
	var texts []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	return texts
}

// peerDir makes a folder with a short name, which sockets need, that every user may enter.
func peerDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := listenFree()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// nobody is the user that servers run as when root runs the test; otherwise nil.
func nobody(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// takeProgram puts the test binary, which is also the program, where another user may run it.
func takeProgram(t testing.TB, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(self, path) == nil {
		return
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate makes cert.pem and key.pem for localhost. The certificate is its own root, so peers can verify it.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	if err := os.Chmod(filepath.Join(dir, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// daemon starts a process that ends with the test, and with this process if that is killed. When the test has failed, the
// end of its log is shown.
func daemon(t testing.TB, cmd *exec.Cmd, logPath string) {
	t.Helper()
	log, err := os.Create(logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s did not stop", cmd.Path)
			cmd.Process.Kill()
			<-ended
		}
		showLog(t, logPath)
	})
}

// showLog prints the end of a log of a test that has failed.
func showLog(t testing.TB, path string) {
	const most = 4000
	if b, err := os.ReadFile(path); err == nil && t.Failed() {
		t.Logf("%s:\n%s", path, b[max(0, len(b)-most):])
	}
}

// runClient runs a client to its end and returns what it printed and its exit status.
func runClient(t testing.TB, cmd *exec.Cmd) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait()
	return out.String(), cmd.ProcessState.ExitCode()
}

// mustRun runs a client that must end well.
func mustRun(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, status := runClient(t, cmd)
	if status != 0 {
		t.Fatalf("%s ended with %d:\n%s", strings.Join(cmd.Args, " "), status, out)
	}
	return out
}

// contains fails the test unless all texts are there.
func contains(t testing.TB, where string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(where, text) {
			t.Errorf("%q is missing in:\n%.4000s", text, where)
		}
	}
}
