package smtpd

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// options are what the first lines of a dialogue may set.
var options = map[string]func(*Config, *Deps){
	"auth": func(c *Config, d *Deps) {
		c.AuthRequired, c.Submission, d.Authenticator = true, true, users{}
	},
	"insecure":  func(c *Config, _ *Deps) { c.InsecureAuth = true },
	"tls":       func(c *Config, _ *Deps) { c.TLS = certificate() },
	"hide":      func(c *Config, _ *Deps) { c.Hide = []string{"8BITMIME", "CHUNKING", "LIMITS"} },
	"lmtp":      func(c *Config, _ *Deps) { c.LMTP = true },
	"normalize": func(c *Config, _ *Deps) { c.BareLF = BareLFNormalize },
	"trusted":   func(c *Config, _ *Deps) { c.Networks = append(c.Networks, netip.MustParsePrefix("198.51.100.0/24")) },
	"small":     func(c *Config, _ *Deps) { c.Limits.MessageSize, c.Limits.Recipients = 100, 2 },
	"full": func(_ *Config, d *Deps) {
		d.Memory = NewBudget(0)
	},
	"nospool": func(c *Config, _ *Deps) { c.SpoolDir = "/nonexistent" },
}

// TestDialogues runs testdata/dialogue/*.txt. Lines there: "option NAME"; "> " and what the client says, in one write
// with the lines that follow it at once; "< " and how a line of the answer begins, or "<*" for the rest of the answer;
// "closed"; "wait DURATION"; "queued FROM TO,TO" and what was queued in the meantime, "queued" for nothing.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in(t, func(c *Config, d *Deps) {
				for line := range strings.Lines(string(script)) {
					if name, ok := strings.CutPrefix(line, "option "); ok {
						options[strings.TrimSpace(name)](c, d)
					}
				}
			}, func(t *testing.T, r *rig) {
				p := &play{t: t, r: r, c: r.dial(), file: file}
				for line := range strings.Lines(string(script)) {
					p.number++
					p.line(strings.TrimSuffix(line, "\n"))
				}
				p.flush()
				p.c.conn.Close()
			})
		})
	}
}

type play struct {
	t      *testing.T
	r      *rig
	c      *client
	file   string
	number int
	out    string
	heard  []string
}

func (p *play) fatalf(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s:%d: "+format, append([]any{p.file, p.number}, args...)...)
}

func (p *play) line(line string) {
	p.t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	if word == ">" {
		if len(p.heard) > 0 {
			p.fatalf("nobody expected %q", p.heard)
		}
		rest = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00", `\e`, "\x1b", `\xff`, "\xff").Replace(rest)
		if s, ok := strings.CutSuffix(rest, `\`); ok { // no CRLF
			p.out += s
		} else {
			p.out += rest + "\r\n"
		}
		return
	}
	switch word {
	case "<":
		p.flush()
		if len(p.heard) == 0 {
			p.fatalf("nothing was said, want %q", rest)
		}
		if !strings.HasPrefix(p.heard[0], rest) {
			p.fatalf("%q was said, want %q", p.heard[0], rest)
		}
		p.heard = p.heard[1:]
	case "<*":
		p.flush()
		p.heard = nil
	case "wait":
		p.flush()
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.fatalf("%v", err)
		}
		time.Sleep(d)
		p.listen()
	case "closed":
		p.flush()
		if !p.c.isClosed() {
			p.fatalf("the connection is open")
		}
	case "queued":
		p.flush()
		p.queued(rest)
	}
}

func (p *play) flush() {
	if p.out != "" {
		_, _ = p.c.conn.Write([]byte(p.out))
		p.out = ""
	}
	p.listen()
}

func (p *play) listen() {
	for line := range strings.SplitSeq(p.c.hear(), "\r\n") {
		if line != "" {
			p.heard = append(p.heard, line)
		}
	}
}

func (p *play) queued(want string) {
	p.t.Helper()
	var got []string
	for _, m := range p.r.take() {
		to := ""
		for i, r := range m.Envelope.To {
			if i > 0 {
				to += ","
			}
			to += r.Address.String()
		}
		got = append(got, "<"+m.Envelope.From.String()+"> "+to)
		if _, err := mail.ParseAddress("x@" + strings.Fields(m.top)[2]); err != nil {
			p.fatalf("the Received field begins with no domain: %q", m.top)
		}
	}
	if s := strings.Join(got, " "); s != want {
		p.fatalf("queued %q, want %q", s, want)
	}
}
