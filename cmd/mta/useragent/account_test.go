package useragent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAccountFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.hcl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("address = \"ann@example.test\"\nname = \"Ann\"\naliases = [\"info@example.test\"]\nimap = \"i:993\"\nsubmit = \"s:465\"\npassword_command = \"printf 'two words\\\\nrest'\"\n")
	a, err := LoadAccount(path, true)
	if err != nil {
		t.Fatal(err)
	}
	a.Or(Account{IMAP: "other:1", User: "login"})
	if err := a.Check(); err != nil || a.IMAP != "i:993" || a.User != "login" || a.Address != "ann@example.test" || a.TLS != "auto" {
		t.Errorf("%+v, %v", a, err)
	}
	t.Setenv("MTA_PASSWORD", "")
	if p, err := a.Password(t.Context()); err != nil || p != "two words" {
		t.Errorf("password %q, %v", p, err)
	}
	for name, text := range map[string]string{"unknown key": "addresses = \"a\"", "no HCL": "x =", "password": "password = \"secret\""} {
		write(text)
		if _, err := LoadAccount(path, true); err == nil || !strings.Contains(err.Error(), "mail.hcl") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []Account{{TLS: "maybe"}, {IMAP: "no-port"}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, err := LoadAccount(path+".none", true); err == nil {
		t.Error("a file that is named and not there is taken")
	}
	if _, err := LoadAccount(path+".none", false); err != nil {
		t.Error(err)
	}
}

func TestPasswords(t *testing.T) {
	t.Setenv("MTA_PASSWORD", "")
	for name, a := range map[string]*Account{
		"nobody to ask": {}, "a command that fails": {PasswordCommand: "exit 3"}, "a command that says nothing": {PasswordCommand: "true"},
		"two lines": {Ask: func() (string, error) { return "a\r\nb", nil }},
	} {
		if p, err := a.Password(t.Context()); err == nil {
			t.Errorf("%s: %q", name, p)
		}
	}
	t.Setenv("MTA_PASSWORD", "from the environment")
	if p, err := (&Account{PasswordCommand: "exit 3"}).Password(t.Context()); err != nil || p != "from the environment" {
		t.Errorf("%q, %v", p, err)
	}
}

// TestWays: no password goes in clear to another machine unless that was written.
func TestWays(t *testing.T) {
	for _, test := range []struct {
		word, server string
		want         way
	}{
		{"auto", "imap.example.com:993", inTLS}, {"auto", "smtp.example.com:465", inTLS}, {"auto", "imap.example.com:143", startTLS},
		{"auto", "smtp.example.com:587", startTLS}, {"auto", "127.0.0.1:1143", asNeeded}, {"auto", "localhost:2587", asNeeded},
		{"auto", "[::1]:143", asNeeded}, {"auto", "127.0.0.1:993", inTLS}, {"none", "imap.example.com:143", inClear},
		{"starttls", "127.0.0.1:143", startTLS}, {"implicit", "imap.example.com:143", inTLS}, {"auto", "localhost.example.com:143", startTLS},
	} {
		if got := chooseWay(test.word, test.server); got != test.want {
			t.Errorf("%s %s: %v, want %v", test.word, test.server, got, test.want)
		}
	}
}
