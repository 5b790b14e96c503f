package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

// blocks returns what stands in the blocks of a page that are marked with a language, in their order.
func blocks(t *testing.T, page, language string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1])
	}
	return list
}

const sdkReadme = "../../sdk/README.md"

// machineTime is how long a newcomer waits for the machine, from an empty folder to a plugin that runs, was tested, changed
// and seen at work.
const machineTime = time.Minute

// TestReadmeShell types what sdk/README.md prints, in an empty folder: in two terminals, of which the first ends with a
// server. Only the ports are others, since those may be taken.
func TestReadmeShell(t *testing.T) {
	if os.Getenv("MTA_TEST_EXAMPLES") == "" {
		t.Skip("builds and checks two plugins: .ci/run sets MTA_TEST_EXAMPLES")
	}
	list := blocks(t, sdkReadme, "sh")
	if len(list) != 4 {
		t.Fatalf("sdk/README.md has %d blocks for a shell, not two for each of two languages", len(list))
	}
	for i, name := range []string{"go", "python"} {
		t.Run(name, func(t *testing.T) {
			if name == "python" {
				needsPython(t)
			}
			n := newcomer(t)
			n.first(list[2*i])
			n.second(list[2*i+1])
			n.leave()
			wall := time.Since(n.began)
			t.Logf("%v of CPU, %v by the clock", n.cpu.Round(time.Millisecond), wall.Round(time.Millisecond))
			if min(n.cpu, wall) > machineTime { // a machine that does other things too is no slower for that
				t.Errorf("it takes %v of CPU and %v by the clock; both are more than %v", n.cpu, wall, machineTime)
			}
		})
	}
}

// beginner has an empty folder, mta in the PATH, and no network.
type beginner struct {
	t         *testing.T
	dir       string
	env       []string
	addresses *strings.Replacer
	server    *exec.Cmd
	log       strings.Builder
	began     time.Time
	cpu       time.Duration // of all that has ended
}

func newcomer(t *testing.T) *beginner {
	t.Helper()
	dir, err := os.MkdirTemp("", "mta-new-") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mta"), fmt.Appendf(nil, "#!/bin/sh\nMTA_TEST_PROGRAM=1 exec %q \"$@\"\n", self), 0o755); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	return &beginner{
		t: t, dir: dir, began: time.Now(),
		env:       append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-mod=mod", "GOWORK=off"),
		addresses: strings.NewReplacer("127.0.0.1:2525", ports[0], "127.0.0.1:2587", ports[1]),
	}
}

// commands are the lines of a block, without comments. A comment that begins with a reply of SMTP tells what the command
// fails with.
func (n *beginner) commands(block string) (list []command) {
	for line := range strings.Lines(block) {
		words, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
		c := command{words: n.addresses.Replace(strings.TrimSpace(words))}
		if fails := regexp.MustCompile(`^ *([45]\d\d [245]\.\d+\.\d+)`).FindStringSubmatch(comment); fails != nil {
			c.fails = fails[1]
		}
		list = append(list, c)
	}
	return list
}

type command struct {
	words, fails string
}

// shell prepares a command.
func (n *beginner) shell(words string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", words)
	cmd.Dir, cmd.Env = n.dir, n.env
	return cmd
}

// run runs a command and returns what it printed.
func (n *beginner) run(words string) (out string, err error) {
	cmd := n.shell(words)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		n.t.Fatal(err)
	}
	n.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return string(b), err
}

// first is the first terminal: its last command is the server.
func (n *beginner) first(block string) {
	n.t.Helper()
	list := n.commands(block)
	last := len(list) - 1
	if list[last].words != "mta serve" {
		n.t.Fatalf("the first terminal ends with %q", list[last].words)
	}
	for _, c := range list[:last] {
		if folder, ok := strings.CutPrefix(c.words, "cd "); ok {
			n.dir = filepath.Join(n.dir, folder)
			n.movePorts()
			continue
		}
		if out, err := n.run(c.words); err != nil {
			n.t.Fatalf("%s: %v\n%s", c.words, err, out)
		}
	}
	n.server = n.shell("exec " + list[last].words)
	n.server.Stdout, n.server.Stderr = &n.log, &n.log
	if err := n.server.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.leave)
	if !poll(func() bool { out, err := n.run("mta status"); return err == nil && out != "" }) {
		n.t.Fatal("the server did not start")
	}
}

// movePorts puts the ports in mta.hcl out of the way of whoever has those.
func (n *beginner) movePorts() {
	n.t.Helper()
	name := filepath.Join(n.dir, "mta.hcl")
	text, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, []byte(n.addresses.Replace(string(text))), 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// second is the second terminal. What is looked for in a mailbox may come a moment later than a machine types.
func (n *beginner) second(block string) {
	n.t.Helper()
	for _, c := range n.commands(block) {
		out, err := n.run(c.words)
		if strings.HasPrefix(c.words, "grep ") && err != nil {
			poll(func() bool { out, err = n.run(c.words); return err == nil })
		}
		switch {
		case c.fails != "" && (err == nil || !strings.Contains(out, c.fails)):
			n.t.Errorf("%s: %v, not %s\n%s", c.words, err, c.fails, out)
		case c.fails == "" && err != nil:
			n.t.Fatalf("%s: %v\n%s", c.words, err, out)
		}
	}
}

// leave stops the server.
func (n *beginner) leave() {
	if n.server == nil {
		return
	}
	if err := n.server.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Error(err)
	}
	if err := n.server.Wait(); err != nil || n.t.Failed() {
		n.t.Errorf("the server: %v\n%s", err, &n.log)
	}
	n.cpu += n.server.ProcessState.UserTime() + n.server.ProcessState.SystemTime()
	n.server = nil
}

// TestReadmePython runs and checks the plugin in Python that sdk/README.md shows.
func TestReadmePython(t *testing.T) {
	notShort(t)
	t.Parallel()
	needsPython(t)
	programs := blocks(t, sdkReadme, "python")
	if len(programs) == 0 || !strings.Contains(programs[0], "mta.serve(") {
		t.Fatal("sdk/README.md shows no program in Python")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "trap.py")
	if err := os.WriteFile(file, []byte(programs[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	zipapp(t, dir, "trap.pyz", map[string]string{"__main__.py": file})
	checked(t, dir, "./trap.pyz")
	p := plugintest.Exec(t, filepath.Join(dir, "trap.pyz"), `{"trap": "nobody"}`)
	for local, code := range map[string]int{"nobody": 550, "ann": 0} {
		v, err := p.Rcpt(t.Context(), &mail.Session{}, mail.Recipient{Address: mail.MustParseAddress(local + "@example.test")})
		if err != nil || v.Reply.Code != code {
			t.Errorf("%s: %v, %v", local, v.Reply, err)
		}
	}
}

// TestReadmeKinds wants each page of sdk/kinds to hold a plugin that builds, its test, which passes, and its part of mta.hcl, which
// mta check takes; and README.md to lead to each page.
func TestReadmeKinds(t *testing.T) {
	if os.Getenv("MTA_TEST_EXAMPLES") == "" {
		t.Skip("builds and checks seven plugins: .ci/run sets MTA_TEST_EXAMPLES")
	}
	t.Setenv("ANN_PASSWORD", "tulip")
	pages, err := filepath.Glob("../../sdk/kinds/*.md")
	if err != nil || len(pages) != 7 {
		t.Fatal(pages, err)
	}
	clone, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(sdkReadme)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "kinds")
	mta(t, filepath.Dir(dir), 0, "plugin", "new", "kinds", "-sdk", clone) // for its go.mod
	for _, name := range []string{"main.go", "main_test.go"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	shown := map[string]string{} // parts of mta.hcl by the page
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if !strings.Contains(string(readme), "(kinds/"+name+".md)") {
			t.Errorf("sdk/README.md does not lead to %s", page)
		}
		programs, parts := blocks(t, page, "go"), blocks(t, page, "hcl")
		if len(programs) != 2 || len(parts) != 1 || !strings.Contains(programs[1], `"testing"`) {
			t.Fatalf("%s shows no plugin, or no test of it, or no part of mta.hcl", page)
		}
		shown[name] = parts[0]
		put(t, filepath.Join(dir, name, "main.go"), programs[0])
		put(t, filepath.Join(dir, name, "main_test.go"), programs[1])
	}
	offline(t, dir, "go", "vet", "./...")
	offline(t, dir, "go", "test", "./...")
	offline(t, dir, "go", "build", "-o", dir+"/bin/", "./...")
	for name, part := range shown {
		block := regexp.MustCompile(`(?m)^plugin "(\w+)" \{\n  source = "\./(\w+)"$`).FindStringSubmatch(part)
		if block == nil || block[1] != block[2] {
			t.Errorf("%s shows no block of a plugin that is beside mta.hcl:\n%s", name, part)
			continue
		}
		home := t.TempDir()
		if err := os.Link(filepath.Join(dir, "bin", name), filepath.Join(home, block[1])); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(part, "observe ") {
			write(t, filepath.Join(home, "mta.hcl"), part+aroundExample)
		} else {
			write(t, filepath.Join(home, "mta.hcl"), aroundExample+part)
		}
		mta(t, home, 0, "plugin", "pin", block[1])
		mta(t, home, 0, "check", "-config", "mta.hcl")
		if name == "observer" { // the other kinds are checked in the examples
			checked(t, home, "./"+block[1], "-config", "mta.hcl")
		}
	}
}

// put writes a file, in a folder that is made for it.
func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, name, text)
}
