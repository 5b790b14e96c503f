package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what comes out into the pages that are tested")

// circlePage is the page that shows the whole way of a letter.
const circlePage = "../../examples/circle/README.md"

// TestCircle does what the page of the circle says: a letter in HTML with a picture, a Korean subject, a link and five
// megabytes crosses two servers of which the second takes 7-bit mail only, and is read, saved, answered and passed on, by
// `mta mail` as a program, at servers that are programs. What is printed must be what the page shows. Steps with mutt are
// for TestInteropCircle.
func TestCircle(t *testing.T) {
	t.Parallel()
	newTranscript(t, circlePage).run(false)
}

// transcript is a page whose console blocks are done, one command after the other, in a copy of its folder.
type transcript struct {
	t       *testing.T
	page    string
	lines   []string
	steps   []step
	dir     string
	env     []string
	screens int               // that there were
	ports   *strings.Replacer // what is printed → what the page shows
	wire    *tap              // from the first server to the second
}

// step is a command of the page and what it prints; [from, to) are the lines of that.
type step struct {
	command  string
	from, to int
}

func newTranscript(t *testing.T, page string) *transcript {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "mta") // short: the paths of sockets have at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &transcript{t: t, page: page, lines: strings.Split(string(b), "\n"), dir: dir}
	c.parse()
	c.install()
	return c
}

func (c *transcript) parse() {
	inside := false
	for i, line := range c.lines {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			c.steps = append(c.steps, step{command, i + 1, i + 1})
		case inside && len(c.steps) > 0:
			c.steps[len(c.steps)-1].to = i + 1
		}
	}
}

// install copies the folder of the page, with ports that are free here, and puts mta into the path.
func (c *transcript) install() {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(c.page), "*"))
	if err != nil {
		c.t.Fatal(err)
	}
	documented := []string{"13025", "13587", "13143", "23025", "23587", "23143"}
	var there, back []string
	for i, address := range freePorts(c.t, len(documented)) {
		_, actual, _ := strings.Cut(address, ":")
		there, back = append(there, documented[i], actual), append(back, actual, documented[i])
		if documented[i] == "23025" {
			c.wire = openTap(c.t, address)
		}
	}
	c.ports = strings.NewReplacer(back...)
	_, tapped, _ := strings.Cut(c.wire.address, ":")
	first := strings.NewReplacer(append([]string{"23025", tapped}, there...)...)
	others := strings.NewReplacer(there...)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			c.t.Fatal(err)
		}
		text := others.Replace(string(b))
		if filepath.Base(f) == "ann-server.hcl" {
			text = first.Replace(string(b))
		}
		if filepath.Ext(f) == ".png" {
			text = string(b)
		}
		c.write(filepath.Base(f), text)
	}
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(c.dir, "mta")); err != nil {
		c.t.Fatal(err)
	}
	c.env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "PATH="+c.dir+":"+os.Getenv("PATH"), "HOME="+c.dir, "LC_ALL=C.UTF-8", "TERM=xterm")
}

func (c *transcript) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// run does the steps, and compares. With -update it writes the page anew instead.
func (c *transcript) run(withMutt bool) {
	shown := make(map[int]string)
	for i, s := range c.steps {
		if strings.HasPrefix(s.command, "mutt ") && !withMutt {
			continue
		}
		want := strings.Join(c.lines[s.from:s.to], "\n")
		got, ok := c.do(i, s.command, want)
		shown[i] = got
		if !ok && !*update {
			c.t.Fatalf("%s prints\n%s\nand the page shows\n%s\n(go test ./cmd/mta -run Circle -update writes the page)", s.command, got, want)
		}
	}
	if _, data, found := bytes.Cut(c.wire.heard(), []byte("DATA\r\n")); !found {
		c.t.Error("no DATA crossed the wire")
	} else {
		checkSevenBit(c.t, "the wire", data)
	}
	if *update {
		c.rewrite(shown)
	}
}

// do does one step and reports whether it printed what is wanted. Mail takes a moment: a list is looked at again.
func (c *transcript) do(i int, command, want string) (got string, ok bool) {
	c.t.Helper()
	if server, ok := strings.CutSuffix(command, " &"); ok {
		return c.serve(i, server, want)
	}
	run := func() bool {
		if strings.HasPrefix(command, "mutt ") {
			got = c.screen(command, want)
			return same(got, want)
		}
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Dir, cmd.Env = c.dir, c.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			out = fmt.Appendf(out, "%v\n", err)
		}
		got = c.ports.Replace(strings.TrimRight(string(out), "\n"))
		return same(got, want)
	}
	if *update && strings.Contains(command, " list") {
		time.Sleep(3 * time.Second) // a page is written once, by hand
	}
	if ok = run(); !ok && strings.Contains(command, " list") && !*update {
		ok = poll(run)
	}
	if strings.Contains(command, " reply ") || strings.Contains(command, " compose ") {
		c.arrives()
	}
	return got, ok
}

// arrives waits until neither server has mail to hand on: what is sent next may not overtake it.
func (c *transcript) arrives() {
	c.t.Helper()
	for _, server := range []string{"ann", "bob", "ann"} { // in this order mail that goes there, or comes back, is seen
		if !poll(func() bool {
			cmd := exec.Command(filepath.Join(c.dir, "mta"), "queue", "list", "-config", server+"-server.hcl")
			cmd.Dir, cmd.Env = c.dir, c.env
			out, err := cmd.Output()
			return err == nil && strings.TrimSpace(string(out)) == "The queue is empty."
		}) {
			c.t.Errorf("mail stays in the queue of %s's server", server)
		}
	}
}

// serve starts a server, which ends with the test at the latest, and waits for its greeting.
func (c *transcript) serve(i int, command, want string) (got string, ok bool) {
	c.t.Helper()
	path := filepath.Join(c.dir, fmt.Sprintf("log%d", i))
	log, err := os.Create(path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	told, err := os.Create(path + ".out")
	if err != nil {
		c.t.Fatal(err)
	}
	defer told.Close()
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, c.env, told, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ProcessState is of no interest: the page says how it ends
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
		if b, err := os.ReadFile(path); err == nil && c.t.Failed() {
			c.t.Logf("the log of %s:\n%s", command, b[max(0, len(b)-3000):])
		}
	})
	ok = poll(func() bool {
		b, err := os.ReadFile(told.Name())
		got = c.ports.Replace(strings.TrimRight(string(b), "\n"))
		return err == nil && (same(got, want) || *update && strings.Contains(got, "try,"))
	})
	return got, ok
}

var (
	dates  = regexp.MustCompile(`\b20\d\d-\d\d-\d\d\b|[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} 20\d\d( at)? \d\d:\d\d(:\d\d)? [-+]\d{4}`)
	spaces = regexp.MustCompile(` {2,}|[ \t]+$`)

	emptyLines = regexp.MustCompile(`\n\s*\n`)
)

// same compares, but for dates and how many spaces there are between words.
func same(a, b string) bool {
	plain := func(s string) string {
		var out []string
		for line := range strings.Lines(s) {
			out = append(out, spaces.ReplaceAllString(dates.ReplaceAllString(strings.TrimRight(line, "\n"), "DATE"), " "))
		}
		return strings.TrimSpace(strings.Join(out, "\n"))
	}
	return plain(a) == plain(b)
}

func (c *transcript) rewrite(shown map[int]string) {
	c.t.Helper()
	var out []string
	at := 0
	for i, s := range c.steps {
		out = append(out, c.lines[at:s.from]...)
		if text, done := shown[i]; !done {
			out = append(out, c.lines[s.from:s.to]...)
		} else if text != "" {
			out = append(out, strings.Split(text, "\n")...)
		}
		at = s.to
	}
	out = append(out, c.lines[at:]...)
	if err := os.WriteFile(c.page, []byte(strings.Join(out, "\n")), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// screen runs a program in a terminal of its own (tmux), and returns what that shows as soon as it is as wanted, or when
// it does not change any more.
func (c *transcript) screen(command, want string) (got string) {
	c.t.Helper()
	c.screens++
	socket := filepath.Join(c.dir, fmt.Sprintf("tmux%d", c.screens))
	tmux := func(args ...string) string {
		cmd := exec.Command("tmux", append([]string{"-S", socket, "-f", "/dev/null"}, args...)...)
		cmd.Dir, cmd.Env = c.dir, c.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			c.t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-x", "110", "-y", "32", command+"; cat")
	defer tmux("kill-server")
	before, still := "", 0
	poll(func() bool {
		got = emptyLines.ReplaceAllString(c.ports.Replace(strings.TrimSpace(tmux("capture-pane", "-p"))), "\n\n")
		if got == before && got != "" {
			still++
		} else {
			before, still = got, 0
		}
		return *update && still > 100 || !*update && same(got, want)
	})
	return got
}
