package python

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/pluginv1"
)

var update = flag.Bool("update", false, "write plugin.binpb")

func TestDescriptor(t *testing.T) {
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(pluginv1.File_plugin_proto))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("pabal_mta/plugin.binpb", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile("pabal_mta/plugin.binpb"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("pabal_mta/plugin.binpb is not that of plugin.proto (%v): go generate ./sdk/python", err)
	}
}

// interpreter returns the Python that has grpc, and skips the test where there is none.
func interpreter(t *testing.T) string {
	t.Helper()
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("no Python with grpc and protobuf (Debian: python3-grpcio, python3-protobuf): %s", bytes.TrimSpace(out))
	}
	return python
}

// TestPython runs the tests that are written in Python.
func TestPython(t *testing.T) {
	cmd := exec.Command(interpreter(t), "-B", "-m", "unittest", "discover", "-s", "tests")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// bee builds the plugin of tests/bee.py.
func bee(t *testing.T) string {
	t.Helper()
	python := interpreter(t)
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(src, Files); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("tests/bee.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(src, "__main__.py"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "bee.pyz")
	if out, err := exec.Command(python, "-m", "zipapp", src, "-p", python, "-o", program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestByHand: Ctrl-C ends a plugin that no server has started, since nobody else would.
func TestByHand(t *testing.T) {
	dir, err := os.MkdirTemp("", "mta") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(bee(t))
	cmd.Env = append(os.Environ(), "MTA_PLUGIN=mta.plugin.v1", "PLUGIN_UNIX_SOCKET_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	if _, err := io.ReadFull(out, make([]byte, len("1|1|unix|"))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Error(err)
	}
}

// ask has the bee do something, and returns what it says.
func ask(t *testing.T, p *plugintest.Plugin, word string) string {
	t.Helper()
	v, err := p.Rcpt(t.Context(), &mail.Session{}, mail.Recipient{Address: mail.MustParseAddress(word + "@example.test")})
	if err != nil {
		t.Fatalf("%s: %v", word, err)
	}
	return v.Reply.Text
}

// TestHost wants a plugin in Python to get of its host what one in Go gets, over the server's own code with its limits.
func TestHost(t *testing.T) {
	p := plugintest.Exec(t, bee(t), nil)
	if got := ask(t, p, "login"); got != "NotProvided" {
		t.Error("a login that nobody can judge:", got)
	}
	p.Host.Accounts = map[string]string{"ann@example.test": "correct horse battery"}
	p.Host.Zone = map[string]plugintest.Records{
		"friend.example":    {MX: []mail.MX{{Host: "mx.friend.example", Pref: 10}, {Host: "b.friend.example", Pref: 20}}, TXT: []string{"v=spf1 -all", "\xff"}},
		"mx.friend.example": {Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
	}
	for word, want := range map[string]string{
		"login":     "ann@example.test",
		"stranger":  "BadLogin",
		"once":      "[True, False, True, b'y', True, None]",
		"incr":      "[1, 42, 40, b'40', b'text', None]",
		"ttl":       "gone",
		"number":    "LimitBroken",
		"key":       "LimitBroken",
		"negative":  "LimitBroken",
		"submit":    "True",
		"oversize":  "LimitBroken",
		"mx":        "[('mx.friend.example', 10), ('b.friend.example', 20)]",
		"addresses": "[IPv4Address('192.0.2.1'), IPv6Address('2001:db8::1')]",
		"txt":       `[b'v=spf1 -all', b'\xff']`,
		"nowhere":   "NotFound",
		"figures":   "None",
	} {
		if got := ask(t, p, word); got != want {
			t.Errorf("%s: %s; want %s", word, got, want)
		}
	}
	if id := ask(t, p, "large"); id != "test-2" {
		t.Error("the second message is", id)
	}
	checkSubmitted(t, p.Host)
	refusal := mail.NewReply(550, "5.1.1", "nobody here")
	p.Host.Refuse = &refusal
	if got := ask(t, p, "nobody"); got != "550 5.1.1" {
		t.Error("a refusal:", got)
	}
	checkMetrics(t, p)
}

func checkSubmitted(t *testing.T, h *plugintest.Host) {
	t.Helper()
	list := h.Submitted()
	if len(list) != 2 || list[0].Envelope.To[0].Address.String() != "ann@example.test" || list[1].Content.Size() != 14+12*90000 {
		t.Fatalf("submitted: %+v", list)
	}
	text, err := io.ReadAll(mail.Reader(list[0].Content))
	if err != nil || string(text) != "Subject: 안녕\r\n\r\nbuzz\r\n" {
		t.Errorf("%q, %v", text, err)
	}
	e := list[1].Envelope
	if e.From.String() != "bee@example.test" || e.EnvID != "7" || len(e.To) != 1 || e.To[0].Address.String() != "bob@example.test" || e.To[0].Notify != mail.NotifyNever {
		t.Errorf("the envelope: %+v", e)
	}
}

// checkMetrics wants figures to arrive, each once, also when the host was in trouble meanwhile and when the plugin ends.
func checkMetrics(t *testing.T, p *plugintest.Plugin) {
	t.Helper()
	p.Host.Fail(errors.New("trouble"))
	if got := ask(t, p, "once"); got != "HostFailed" {
		t.Error("trouble of the host:", got)
	}
	ask(t, p, "figures")
	p.Host.Fail(nil)
	if _, err := p.Drain(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"made_total": 6, "depth": 7, "closed_total": 1, "Wrong": 0} {
		if got := p.Host.Metric(name); got != want {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
}
