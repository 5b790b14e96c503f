//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/cmd/mtabench/report"
)

func mtabench(args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = run(args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"help"}, 0, "mtabench measures mail servers side by side"},
		{[]string{"-help"}, 0, "mtabench setup [KIT...]"},
		{[]string{"-peeers", "mta"}, 2, "flag provided but not defined"},
		{[]string{"-peers", "sendmail"}, 2, `there is no peer "sendmail"; there are: direct, mta`},
		{[]string{"-scenarios", "all,e2e"}, 2, `there is no scenario "all"`},
		{[]string{"mta"}, 2, `there is no command "mta"`},
		{[]string{"-rounds", "1", "mta"}, 2, `"mta" is no flag`},
		{[]string{"-rounds", "0"}, 2, "at least 1"},
		{[]string{"-dir", "/var/lib/mtabench"}, 2, "another -dir"},
		{[]string{"table"}, 1, "mtabench table results.jsonl"},
		{[]string{"table", "/no/such/file"}, 1, "no such file"},
		{[]string{"setup", "-dir", os.TempDir(), "sendmail"}, 1, `there is no kit "sendmail"`},
	} {
		code, out, errs := mtabench(test.args...)
		if code != test.code || !strings.Contains(out+errs, test.says) {
			t.Errorf("%v: %d, %s%s", test.args, code, out, errs)
		}
	}
}

func TestOneAtATimeInAFolder(t *testing.T) {
	o := &options{dir: t.TempDir()}
	unlock, err := o.prepare(t.Context(), nil, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.prepare(t.Context(), nil, os.Stderr); err == nil || !strings.Contains(err.Error(), "another mtabench works in "+o.dir) {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	unlock, err = o.prepare(t.Context(), nil, os.Stderr)
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	unlock()
}

// TestInteropMeasures runs the whole program: it needs root and half a minute.
func TestInteropMeasures(t *testing.T) {
	if os.Getenv("MTA_INTEROP") == "" || os.Geteuid() != 0 {
		t.Skip("this needs root; .ci/interop runs it")
	}
	dir := t.TempDir()
	program, records := filepath.Join(dir, "mtabench"), filepath.Join(dir, "r.jsonl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "-dir", dir, "-peers", "direct,mta,mta-noop", "-scenarios", "idle,acc-c1-p1", "-rounds", "1", "-out", records, "-base", "mta")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := report.Read(records)
	if err != nil || len(got) != 6 || got[0].Machine == nil {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for _, r := range got[1:] {
		if r.Error != "" || r.Wrong != "" || (r.Scenario != "idle" && r.Figures[report.Delivered] == 0) {
			t.Errorf("%+v", r)
		}
		if _, ok := r.Figures[report.Anon]; !ok && r.Peer != "direct" {
			t.Errorf("no memory: %+v", r)
		}
	}
}

func TestList(t *testing.T) {
	code, out, _ := mtabench("list")
	for _, word := range []string{"\n  postfix-tuned ", "\n  mta-noop ", "\n  e2e-50rcpt ", "\n  million "} {
		if !strings.Contains(out, word) {
			t.Errorf("%q is missing: %d\n%s", word, code, out)
		}
	}
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	lines := `{"peer":"postfix","scenario":"e2e-4k","round":1,"figures":{"e2e_rate":100,"other_cores":0.1}}
{"peer":"mta","scenario":"e2e-4k","round":1,"figures":{"e2e_rate":2500,"other_cores":0.1}}
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := mtabench("table", path)
	if code != 0 || !strings.Contains(out, "| mta | 1 | 2500 | 25.00 |") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	code, out, errs = mtabench("table", "-base", "mta", "-json", path)
	if code != 0 || !strings.Contains(out, `"e2e_rate": 2500`) {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
}
