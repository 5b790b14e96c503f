package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var loopbackPort = regexp.MustCompile(`127\.0\.0\.1:(\d+)`)

// TestShipped serves the mta.hcl of the repository as it is, but on ports that are free, and does what the README says: the
// server names where mail is read and who can read it, and each line to try works as it is written there.
func TestShipped(t *testing.T) {
	t.Parallel()
	config := fileText(t, "../../mta.hcl")
	readme := fileText(t, "../../README.md")
	free := map[string]string{}
	for _, m := range loopbackPort.FindAllStringSubmatch(config, -1) {
		free[m[0]] = freePorts(t, 1)[0]
	}
	for _, shown := range loopbackPort.FindAllString(readme, -1) {
		if free[shown] == "" {
			t.Errorf("the README names %s, and mta.hcl does not", shown)
		}
	}
	s := newSystem(t, loopbackPort.ReplaceAllStringFunc(config, func(at string) string { return free[at] }), nil)
	s.start()

	var told string
	if !poll(func() bool {
		told = fileText(t, s.path("log"))
		return strings.Contains(told, "mail list -user")
	}) {
		t.Fatalf("serve prints\n%s", told)
	}
	for _, line := range []string{
		`imap +` + free["127.0.0.1:1143"] + ` +to read mail`, `pop3 +` + free["127.0.0.1:1110"] + ` +to read mail`,
		`submission +` + free["127.0.0.1:2587"] + ` .*login wanted`, `mx +` + free["127.0.0.1:2525"],
		`mail list -user ann@example\.test`,
	} {
		if !regexp.MustCompile(`(?m)^ +.*` + line).MatchString(told) {
			t.Errorf("serve does not print %s:\n%s", line, told)
		}
	}
	passwords := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ +(\w+)@example\.test +([a-z2-7-]{19})$`).FindAllStringSubmatch(told, -1) {
		passwords[m[1]] = m[2]
	}
	if passwords["ann"] == "" || passwords["bob"] == "" || len(passwords) != 2 {
		t.Fatalf("serve does not print the passwords of ann and bob:\n%s", told)
	}

	if err := os.WriteFile(s.path("menu.pdf"), []byte("%PDF-1.4\n\x00\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What a line prints is looked for again and again where mail takes a moment.
	want := map[string]string{
		"send": "250 2.0.0 queued as", "list": " N ", "read": "This is a test message.", "compose": "sent to bob@example.test", "queue": "The queue is empty",
	}
	_, shown, _ := strings.Cut(readme, "and a line to try:")
	shown, _, _ = strings.Cut(shown, "The whole way of a letter")
	for line := range strings.Lines(shown) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "go run ./cmd/mta ")
		if !ok {
			continue
		}
		words := strings.Fields(command)
		verb := words[0]
		if verb == "mail" {
			verb = words[1]
		}
		var out string
		if !poll(func() bool {
			cmd := exec.Command("/bin/sh", "-c", `"$MTA_TEST_BINARY" `+command)
			cmd.Dir, cmd.Env = s.dir, append(s.command().Env, "MTA_TEST_BINARY="+s.command().Path, "HOME="+s.dir, "MTA_PASSWORD="+passwords["ann"])
			b, err := cmd.CombinedOutput()
			out = string(b)
			return want[verb] != "" && err == nil && strings.Contains(out, want[verb])
		}) {
			t.Fatalf("%s prints\n%s", command, out)
		}
		delete(want, verb)
	}
	if len(want) > 0 {
		t.Errorf("the README does not show %v", want)
	}
	cmd := s.command("mail", "list", "-user", "bob@example.test")
	cmd.Env = append(cmd.Env, "HOME="+s.dir, "MTA_PASSWORD="+passwords["bob"])
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Lunch") || !strings.Contains(string(out), "+1 attachment") {
		t.Errorf("bob has %v, %s", err, out)
	}
	s.stop()
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
