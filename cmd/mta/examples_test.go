package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// aroundExample makes a configuration of what an example's documentation shows.
const aroundExample = `hostname = "mx.example.com"
data_dir = "./var"
listener "mx" {
  address = ["127.0.0.1:2525"]
}
plugin "mailboxes" {
  source = "builtin:maildir"
  config {
    path = "./var/mail/{domain}/{user}"
  }
}
route "here" {
  domains = ["here.example"]
  store   = plugin.mailboxes
}
`

// TestExamples wants mta check to take the configuration that each example in Go shows in its documentation. With
// MTA_TEST_EXAMPLES, as in .ci/run, each has to pass all checks of mta plugin check, too.
func TestExamples(t *testing.T) {
	notShort(t)
	t.Setenv("PROVIDER_PASSWORD", "x")
	programs, err := filepath.Glob("../../examples/*/main.go")
	if err != nil || len(programs) < 7 {
		t.Fatal(programs, err)
	}
	thorough := os.Getenv("MTA_TEST_EXAMPLES") != ""
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bounces" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer service.Close()
	for _, program := range programs {
		example := filepath.Dir(program)
		t.Run(filepath.Base(example), func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(example, "go.mod")); err == nil && !thorough {
				t.Skip("a module of its own, which may have to be fetched: .ci/run sets MTA_TEST_EXAMPLES")
			}
			dir := t.TempDir()
			binary := filepath.Join(dir, filepath.Base(example))
			build := exec.Command("go", "build", "-o", binary, ".")
			build.Dir = example
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			shown := shownConfig(t, program)
			block := regexp.MustCompile(`(?m)^plugin "(\w+)"`).FindStringSubmatch(shown)
			shown = regexp.MustCompile(`source *= "[^"]*"`).ReplaceAllString(shown, `source = "`+binary+`"`)
			shown = regexp.MustCompile(`https://[a-z.]*example`).ReplaceAllString(shown, service.URL)
			shown = strings.ReplaceAll(shown, "/var/lib/mta-archive", filepath.Join(dir, "kept"))
			shown = regexp.MustCompile(`driver *= "postgres"\s+dsn *= .*`).ReplaceAllString(shown, "driver = \"sqlite\"\ndsn = \""+filepath.Join(dir, "db")+`"`)
			if strings.Contains(shown, `listener "mx"`) || block == nil {
				t.Fatalf("the documentation shows\n%s", shown)
			}
			if err := os.WriteFile(filepath.Join(dir, "mta.hcl"), []byte(aroundExample+shown), 0o600); err != nil {
				t.Fatal(err)
			}
			mta(t, dir, 0, "plugin", "pin", block[1])
			mta(t, dir, 0, "check", "-config", "mta.hcl")
			if thorough && filepath.Base(example) != "sqlauth" { // its database has no table
				checked(t, dir, binary, "-config", "mta.hcl")
			}
		})
	}
}

// shownConfig returns what follows "In mta.hcl:" in a program's documentation.
func shownConfig(t *testing.T, program string) string {
	src, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(src), "// In mta.hcl:\n//\n")
	if !found {
		t.Fatal("the documentation shows no configuration")
	}
	var b strings.Builder
	for line := range strings.Lines(after) {
		code, isCode := strings.CutPrefix(line, "//\t")
		if !isCode && strings.TrimSpace(line) != "//" {
			break
		}
		if isCode {
			b.WriteString(code)
		}
	}
	return b.String()
}
