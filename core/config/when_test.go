package config

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/pabal-mta/mta/sdk/mail"
)

func compileText(t testing.TB, text, stage string) (*Condition, Diagnostics) {
	t.Helper()
	expr, diags := hclsyntax.ParseExpression([]byte(text), "when", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return compile(expr, stage, []byte(text))
}

func someFacts() Facts {
	return Facts{
		Authenticated: true, User: "ann@example.com", RemoteIP: netip.MustParseAddr("10.1.2.3"), Helo: "Client.Example",
		TLS: true, Listener: "mx", Sender: mail.MustParseAddress("ann@example.com"), Recipient: mail.MustParseAddress("bob@example.net"),
		Size: 5 << 20, Recipients: 3, Meta: map[string]string{"class": "bulk", "a b": "x"},
	}
}

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		text, stage string
		want        bool
	}{
		{"true", "connect", true},
		{"!session.authenticated", "rcpt", false},
		{`session.user == "ann@example.com"`, "connect", true},
		{`session.listener == "mx" && session.tls`, "connect", true},
		{`cidr_contains("10.0.0.0/8", session.remote_ip)`, "connect", true},
		{`cidr_contains("2001:db8::/32", session.remote_ip)`, "connect", false},
		{`ends_with(lower(session.helo), ".example")`, "helo", true},
		{`starts_with(sender.address, "ann@")`, "mail", true},
		{`sender.local == "ann" && sender.domain == "example.com"`, "rcpt", true},
		{`contains(["example.net", "example.org"], rcpt.domain)`, "rcpt", true},
		{`rcpt.local == "bob" && rcpt.address != ""`, "rcpt", true},
		{"message.size < 8 * MiB", "message", true},
		{"message.size > 4 * 1024 * KiB && message.recipients <= 3", "message", true},
		{"message.size >= GiB", "message", false},
		{`meta("class") == "bulk"`, "connect", true},
		{`contains(["bulk", "list"], meta("class")) && meta("nobody set this") == ""`, "rcpt", true},
		{`meta("a b") == "x"`, "message", true},
		{`session["tls"] ? message.size > 0 : false`, "message", true},
		{`"${sender.local}@${sender.domain}" == sender.address`, "mail", true},
	} {
		cond, diags := compileText(t, c.text, c.stage)
		if len(diags) > 0 {
			t.Errorf("%s: %v", c.text, diags)
			continue
		}
		got, err := cond.Eval(someFacts())
		if err != nil || got != c.want {
			t.Errorf("%s = %v, %v; want %v", c.text, got, err, c.want)
		}
		if cond.String() != c.text {
			t.Errorf("%s is printed as %s", c.text, cond)
		}
	}
}

// TestConditionMistakes finds each mistake at load, on both sides of && and ||, whatever the other side is.
func TestConditionMistakes(t *testing.T) {
	for _, c := range []struct{ text, stage, want string }{
		{"session.authenticated && sender.domian == \"a\"", "mail", `sender has no "domian"; did you mean "domain"?`},
		{"!session.authenticated && session.usr == \"a\"", "mail", `session has no "usr"; did you mean "user"?`},
		{"session.tls || session.usr == \"a\"", "mail", `session has no "usr"; did you mean "user"?`},
		{"false && session.tls + 1 == 2", "mail", "unsuitable value for left operand: "},
		{"true || session.user < 7", "mail", "unsuitable value for left operand: "},
		{"true || cidr_contains(\"10/8\", session.remote_ip)", "mail", "cidr_contains wants a network"},
		{"true || (false && nope(1))", "mail", `there is no function named "nope"`},
		{"true ? true : lower(1, 2) == \"\"", "mail", "function \"lower\" expects"},
		{"rcpt.domain == \"a\"", "mail", `rcpt.domain is not known at stage "mail"; it is at "rcpt"`},
		{"session.helo == \"a\"", "connect", `session.helo is not known at stage "connect"; it is at "helo", "mail", "rcpt", "message"`},
		{"session", "mail", "which part of session?"},
		{"session.user.name == \"\"", "mail", "nothing can follow session.user"},
		{"session.user", "mail", "when wants true or false, not a string"},
		{"\"true\"", "mail", "when wants true or false, not a string"},
		{"session.tls && null", "mail", "null is no value"},
		{"[for x in [true] : x][0]", "mail", "there are no loops"},
		{"env(\"HOME\") == \"\"", "mail", `there is no function named "env"`},
		{"plugin.users == 1", "mail", `when knows no "plugin"`},
	} {
		cond, diags := compileText(t, c.text, c.stage)
		if cond != nil || len(diags) == 0 || !strings.HasPrefix(diags[0].Summary, c.want) {
			t.Errorf("%s: %v; want %s", c.text, diags, c.want)
		}
		for _, d := range diags {
			if d.Line != 1 || d.Col < 1 {
				t.Errorf("%s: no place: %+v", c.text, d)
			}
		}
	}
}

// TestConditionOfNothing evaluates with no facts, as for a message that the server itself made.
func TestConditionOfNothing(t *testing.T) {
	cond, diags := compileText(t, `cidr_contains("10.0.0.0/8", session.remote_ip) || sender.address != ""`, "mail")
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if got, err := cond.Eval(Facts{}); got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestConditionFails has an error that only the values make: it is told, it does not decide.
func TestConditionFails(t *testing.T) {
	cond, diags := compileText(t, `cidr_contains("10.0.0.0/8", session.user == "" ? session.helo : session.remote_ip)`, "message")
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if got, err := cond.Eval(Facts{Helo: "no address"}); got || err == nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestConditionAtOnce(t *testing.T) {
	cond, diags := compileText(t, `session.tls && message.size > 1 && "${sender.local}" == "ann"`, "message")
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 100 {
				if ok, err := cond.Eval(someFacts()); !ok || err != nil {
					t.Errorf("%v, %v", ok, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestSuggest(t *testing.T) {
	names := []string{"address", "auth", "pipeline", "rspamd", "tls"}
	for given, want := range map[string]string{
		"addr3ss": "address", "rspmd": "rspamd", "pipelien": "pipeline", "tsl": "tls", "colour": "", "": "", "x": "",
		strings.Repeat("a", 1000): "",
	} {
		if got := suggest(given, names); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func FuzzCondition(f *testing.F) {
	f.Add("session.tls && message.size < 8 * MiB", "message")
	f.Add(`cidr_contains("10.0.0.0/8", session.remote_ip) || ends_with(lower(session.helo), "x")`, "helo")
	f.Add(`contains(["a"], rcpt.domain) ? !true : (1 / 0 > -1)`, "rcpt")
	f.Fuzz(func(t *testing.T, text, stage string) {
		if tooDeep("when", []byte(text)) != nil || len(text) > 4096 {
			return
		}
		expr, diags := hclsyntax.ParseExpression([]byte(text), "when", hcl.InitialPos)
		if diags.HasErrors() {
			return
		}
		cond, _ := compile(expr, stage, []byte(text))
		if cond != nil {
			_, _ = cond.Eval(someFacts())
			_, _ = cond.Eval(Facts{})
		}
	})
}

func BenchmarkCondition(b *testing.B) {
	cond, diags := compileText(b, `!session.authenticated && message.size < 8 * MiB`, "message")
	if len(diags) > 0 {
		b.Fatal(diags)
	}
	f := someFacts()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cond.Eval(f); err != nil {
			b.Fatal(err)
		}
	}
}
