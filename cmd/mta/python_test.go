package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/pabal-mta/mta/sdk/python"
)

// zipapp packs a plugin in Python, the SDK and these files, as dir/name.
func zipapp(t *testing.T, dir, name string, files map[string]string) {
	t.Helper()
	interpreter := needsPython(t)
	src := filepath.Join(t.TempDir(), "src")
	if err := os.CopyFS(src, python.Files); err != nil {
		t.Fatal(err)
	}
	for inside, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(src, inside), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	offline(t, dir, interpreter, "-m", "zipapp", src, "-p", interpreter, "-o", name)
}

const pythonBee = `
hostname = "mx.example"
domains  = ["example.test"]
data_dir = "var"
observe  = [plugin.bee]

dns {
  servers = ["${DNS}"]
}

listener "mx" {
  address = ["${MX}"]
}

plugin "users" {
  source = "builtin:users"
  config {
    file = "users"
  }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config {
    path     = "var/mail/{domain}/{user}"
    accounts = "users"
  }
}

plugin "bee" {
  source = "./bee.pyz"
  auth   = plugin.users
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
}

queue {
  min_free = "1MiB"
}

admin {
  listen = "${WEB}"
}
`

// zone serves records until the end of the test.
func zone(t *testing.T, records ...string) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err == nil && rr.Header().Rrtype == q.Question[0].Qtype && strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// TestPythonHost runs a server whose observer in Python asks everything of its host. What it keeps outlives the server.
func TestPythonHost(t *testing.T) {
	notShort(t)
	t.Parallel()
	needsPython(t)
	ports := freePorts(t, 2)
	s := newSystem(t, pythonBee, map[string]string{"MX": ports[0], "WEB": ports[1],
		"DNS": zone(t, "friend.example. 60 IN MX 10 mx.friend.example.", "friend.example. 60 IN TXT \"v=spf1 -all\"")})
	zipapp(t, s.dir, "bee.pyz", map[string]string{"__main__.py": "../../sdk/python/tests/bee.py"})
	s.must("correct horse battery\n", "user", "add", "ann@example.test", "-file", "users")
	s.must("", "plugin", "pin", "bee")
	s.start()
	letter := "Subject: hello\r\n\r\nhello\r\n"
	if err := mustDial(t, ports[0]).Send("<carol@sender.example>", "ann@example.test", []byte(letter)); err != nil {
		t.Fatal(err)
	}
	heard := s.path("var/plugins/bee/heard")
	tells(t, heard, "attempt ann@example.test delivered", "login: ann@example.test", "stranger: BadLogin",
		"once: [True, False, True, b'y', True, None]", "incr: [1, 42, 40, b'40', b'text', None]", "submit: True", "nobody: 550 5.1.1",
		"lines: 554 5.6.0", "mx: [('mx.friend.example', 10)]", "txt: [b'v=spf1 -all']", "figures: None", "asked: b'yes'")
	for _, text := range s.mailbox("ann", 2) {
		if !strings.Contains(text, "hello") && !strings.Contains(text, "Received: by mx.example (plugin bee);") {
			t.Errorf("ann has got\n%s", text)
		}
	}
	if !poll(func() bool {
		text := page(ports[1])
		return strings.Contains(text, "\nmta_plugin_bee_made_total 3\n") && strings.Contains(text, "\nmta_plugin_bee_depth 7\n")
	}) {
		t.Errorf("the figures:\n%s", page(ports[1]))
	}
	s.stop()
	if err := os.Remove(heard); err != nil {
		t.Fatal(err)
	}
	s.start()
	if err := mustDial(t, ports[0]).Send("<carol@sender.example>", "ann@example.test", []byte(letter)); err != nil {
		t.Fatal(err)
	}
	tells(t, heard, "asked: b'yes'")
	if data, _ := os.ReadFile(heard); strings.Contains(string(data), "once:") {
		t.Errorf("it has forgotten what it kept:\n%s", data)
	}
}

const pythonReader = `
hostname = "mx.example"
domains  = ["example.test"]
data_dir = "var"

listener "mx" {
  address  = ["${MX}"]
  pipeline = pipeline.in
}

plugin "users" {
  source = "builtin:users"
  config {
    file = "users"
  }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config {
    path     = "var/mail/{domain}/{user}"
    accounts = "users"
  }
}

plugin "reader" {
  source = "./reader.pyz"
}

pipeline "in" {
  on "message" {
    use = [plugin.reader]
  }
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
}

queue {
  min_free = "1MiB"
}
`

// TestPythonFiles: a large message comes to a plugin in Python as a file, whole, and the file is closed after the call.
func TestPythonFiles(t *testing.T) {
	notShort(t)
	t.Parallel()
	needsPython(t)
	ports := freePorts(t, 1)
	s := newSystem(t, pythonReader, map[string]string{"MX": ports[0]})
	zipapp(t, s.dir, "reader.pyz", map[string]string{"__main__.py": "../../sdk/python/tests/reader.py"})
	s.must("correct horse battery\n", "user", "add", "ann@example.test", "-file", "users")
	s.must("", "plugin", "pin", "reader")
	s.start()
	want := map[string]int{}
	c := mustDial(t, ports[0])
	for n, lines := range []int{10, 6_000, 200_000, 6_001, 6_002, 6_003, 6_004, 6_005} {
		body := strings.Repeat(fmt.Sprintf("line of message %d\r\n", n), lines)
		if err := c.Send("<carol@sender.example>", "ann@example.test", []byte("Subject: x\r\n\r\n"+body)); err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf("%x", sha256.Sum256([]byte(body)))] = lines
	}
	open := map[string]int{}
	for _, text := range s.mailbox("ann", len(want)) {
		read := regexp.MustCompile(`X-Open: (\d+)\r?\nX-Read: (as a file|inline), (\w+)\r?\n`).FindStringSubmatch(text)
		if read == nil || want[read[3]] == 0 || (read[2] == "as a file") != (want[read[3]] > 1000) {
			t.Fatalf("%q, of a message that begins with\n%.400s", read, text)
		}
		if read[2] == "as a file" {
			open[read[1]]++
		}
		delete(want, read[3])
	}
	if len(open) > 2 { // a connection of the server's may come and go
		t.Errorf("so many files were open, so often: %v", open)
	}
	if out := s.must("", "plugin", "info", "reader"); !strings.Contains(out, "contents above 64 KiB: by descriptor") {
		t.Error(out)
	}
	s.must("", "plugin", "check", "reader")
	s.stop()
}

func page(address string) string {
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var b strings.Builder
	_, _ = io.Copy(&b, res.Body)
	return b.String()
}

// tells waits until each of the lines is in the file.
func tells(t *testing.T, file string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !poll(func() bool {
			data, _ := os.ReadFile(file)
			return strings.Contains("\n"+string(data), "\n"+line+"\n")
		}) {
			data, _ := os.ReadFile(file)
			t.Fatalf("%s does not tell %q:\n%s", filepath.Base(file), line, data)
		}
	}
}
