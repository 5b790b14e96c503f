package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// login logs in at an IMAP server without TLS.
func login(address, user, password string) (*imapclient.Client, error) {
	c, err := imapclient.DialInsecure(address, nil)
	if err != nil {
		return nil, err
	}
	if err := c.Login(user, password).Wait(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// fullMailbox starts a server whose mailboxes hold 40 KiB, where ann has a message of 30 KiB already and bob has written her
// another one.
func fullMailbox(t *testing.T, more string) (s *system, address string) {
	t.Helper()
	p := freePorts(t, 3)
	config := strings.NewReplacer(`accounts = "var/users"`, "accounts = \"var/users\"\n    quota = \"40KiB\"\n    "+more, "queue {", "queue {\n  retry = [\"1s\"]").Replace(readerConfig)
	s = newSystem(t, config+"plugin \"bounces\" { source = \"builtin:bounces\" }\nbounce { notify = [plugin.bounces] }\n",
		map[string]string{"MX": p[0], "IMAP": p[1], "POP3": p[2]})
	for _, name := range []string{"ann@example.test", "bob@example.test"} {
		s.must(secretOfAnn+"\n", "user", "add", name)
	}
	s.start()
	for _, subject := range []string{"first", "second"} {
		text := "From: <bob@example.test>\r\nSubject: " + subject + "\r\n\r\n" + strings.Repeat("thirty-two octets with their end\r\n", 30<<10/34)
		if err := mustDial(t, p[0]).Send("<bob@example.test>", "ann@example.test", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if subject == "first" {
			s.mailbox("ann", 1)
		}
	}
	return s, p[1]
}

// TestFullMailboxWaits: mail for a full mailbox stays in our queue with the reply 452, and is delivered when its owner has
// made room by IMAP.
func TestFullMailboxWaits(t *testing.T) {
	t.Parallel()
	s, address := fullMailbox(t, "")
	var shown string
	if !poll(func() bool {
		shown = s.must("", "queue", "list")
		return strings.Contains(shown, "452 4.2.2")
	}) {
		t.Fatalf("the queue shows\n%s", shown)
	}
	s.mailbox("ann", 1)
	c, err := login(address, "ann@example.test", secretOfAnn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	mark := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
	if err := errors.Join(c.Store(imap.UIDSetNum(1), mark, nil).Close(), c.Expunge().Close()); err != nil {
		t.Fatal(err)
	}
	s.emptied()
	if got := s.mailbox("ann", 1)[0]; !strings.Contains(got, "Subject: second") {
		t.Errorf("ann has got %.300q", got)
	}
	if files, _ := os.ReadDir(s.path("var/mail/example.test/bob/new")); len(files) > 0 {
		t.Error("bob was sent a report of mail that only had to wait")
	}
}

// TestFullMailboxRefuses: where the configuration says so, mail for a full mailbox comes back to its sender at once.
func TestFullMailboxRefuses(t *testing.T) {
	t.Parallel()
	s, _ := fullMailbox(t, `over_quota = "reject"`)
	report := s.mailbox("bob", 1)[0]
	for _, want := range []string{"Final-Recipient: rfc822; ann@example.test", "Action: failed", "Status: 5.2.2", "552 5.2.2", "Subject: second"} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is not in the report:\n%s", want, report)
		}
	}
	s.emptied()
	s.mailbox("ann", 1)
}

// TestMailboxOtherAuthenticator: who may read mail is what any Authenticator says, here an HTTP service behind the plugin
// of examples/httpauth: its account, not the name that was typed, is whose mailbox is opened, and a service in trouble is no
// wrong password.
func TestMailboxOtherAuthenticator(t *testing.T) {
	notShort(t)
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ User, Password, Service, Remote string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Service != "imap" || q.Remote != "127.0.0.1" {
			t.Errorf("the service is asked %+v, %v", q, err)
		}
		switch q.User + " " + q.Password {
		case "Ann right":
			_ = json.NewEncoder(w).Encode(map[string]string{"user": "ann@example.test"})
		case "Ann trouble":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer service.Close()
	p := freePorts(t, 3)
	config := strings.NewReplacer("builtin:users", "./httpauth", `config { file = "var/users" }`, `config { url = "`+service.URL+`" }`,
		`accounts = "var/users"`, "").Replace(readerConfig)
	s := newSystem(t, config, map[string]string{"MX": p[0], "IMAP": p[1], "POP3": p[2]})
	if out, err := exec.Command("go", "build", "-o", s.path("httpauth"), "../../examples/httpauth").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	s.must("", "plugin", "pin", "users")
	if err := os.MkdirAll(s.path("var/mail/example.test/ann"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	if err := mustDial(t, p[0]).Send("<carol@sender.example>", "ann@example.test", []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	s.mailbox("ann", 1)
	c, err := login(p[1], "Ann", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("the mailbox of ann: %+v, %v", data, err)
	}
	for password, code := range map[string]imap.ResponseCode{"wrong": imap.ResponseCodeAuthenticationFailed, "trouble": imap.ResponseCodeUnavailable} {
		var no *imap.Error
		if _, err := login(p[1], "Ann", password); !errors.As(err, &no) || no.Code != code {
			t.Errorf("%s: %v, not %s", password, err, code)
		}
	}
}
