package maildir_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir"
	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestOverTheWire(t *testing.T) {
	dir := t.TempDir()
	f, err := users.Open(filepath.Join(dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Add(users.Account{Name: mail.MustParseAddress("ann@example.com")}, "x"); err != nil {
		t.Fatal(err)
	}
	p := plugintest.New(t, maildir.Plugin(), map[string]any{
		"path": dir + "/mail/{domain}/{user}", "accounts": dir + "/users", "aliases": map[string]string{"root@example.com": "ann@example.com"},
	})
	to := []mail.Address{mail.MustParseAddress("ann+x@example.com"), mail.MustParseAddress("eve@example.com"), mail.MustParseAddress("root@example.com")}
	boxes, err := p.Lookup(t.Context(), to)
	if err != nil || boxes[0].State != mail.MailboxExists || boxes[1].State != mail.MailboxUnknown ||
		boxes[2].State != mail.MailboxAlias || !slices.Equal(boxes[2].Aliases, []mail.Address{mail.MustParseAddress("ann@example.com")}) {
		t.Errorf("%+v, %v", boxes, err)
	}
	large := bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 100_000)
	d := &mail.Delivery{ID: "1", Content: mail.Bytes(large), Time: time.Now(), To: []mail.Recipient{{Address: to[0]}, {Address: to[1]}}}
	for range 2 {
		replies, err := p.Store(t.Context(), d)
		if err != nil || replies[0].Code != 250 || replies[1].Code != 550 {
			t.Errorf("%v, %v", replies, err)
		}
	}
	stored, err := filepath.Glob(dir + "/mail/example.com/ann/new/*")
	if err != nil || len(stored) != 1 {
		t.Fatalf("%v, %v", stored, err)
	}
	b, err := os.ReadFile(stored[0])
	if err != nil || !bytes.HasSuffix(b, bytes.ReplaceAll(large, []byte("\r\n"), []byte("\n"))) {
		t.Errorf("%d bytes are kept of %d, %v", len(b), len(large), err)
	}
}

func TestConfigProblems(t *testing.T) {
	for path, config := range map[string]string{
		"path":                     `{"path": "/var/mail"}`,
		"aliases ann@example.com":  `{"path": "{user}", "aliases": {"ann@example.com": "bob"}}`,
		"aliases @not a domain.xx": `{"path": "{user}", "aliases": {"@not a domain.xx": "bob@example.com"}}`,
		"postmaster":               `{"path": "{user}", "postmaster": "me"}`,
		"imap 1 insecure_auth": `{"path": "{user}", "imap": [{"address": ["127.0.0.1:1"], "insecure_auth": true},
			{"address": ["0.0.0.0:1"], "insecure_auth": true}]}`,
		"pop3 0 cert_file": `{"path": "{user}", "pop3": [{"address": ["127.0.0.1:1"]}]}`,
	} {
		if p := plugintest.Problems(t, maildir.Plugin(), config); len(p) != 1 || strings.Join(p[0].Path, " ") != path {
			t.Errorf("%s: %v", config, p)
		}
	}
}
