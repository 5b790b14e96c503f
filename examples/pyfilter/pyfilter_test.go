// Package pyfilter holds a plugin in Python; there is no Go in it but this test.
package pyfilter

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/python"
)

// build makes the plugin as README.md says.
func build(t *testing.T) string {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if out, err := exec.Command(interpreter, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("no Python with grpc and protobuf (Debian: python3-grpcio, python3-protobuf): %s", bytes.TrimSpace(out))
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	for _, name := range []string{"__main__.py", "pyfilter.py"} {
		data, err := os.ReadFile(filepath.Join("src", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(src, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(src, python.Files); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "pyfilter.pyz")
	if out, err := exec.Command(interpreter, "-m", "zipapp", src, "-p", interpreter, "-o", program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func message(s string) *mail.Message {
	c := mail.Bytes([]byte(strings.ReplaceAll(s, "\n", "\r\n")))
	h, _, err := mail.ReadHeader(c)
	if err != nil {
		panic(err)
	}
	return &mail.Message{Header: h, Content: c}
}

func TestMessage(t *testing.T) {
	p := plugintest.Exec(t, build(t), `{"refuse": ["exe", ".JS"], "external_tag": "[external]"}`)
	part := func(header string) string {
		return "Subject: [external] x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + header + "\n\nxxx\n--b--\n"
	}
	var nested strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	tagged := func(e mail.Edit) string { return fmt.Sprint([]mail.Edit{e}) }
	for name, test := range map[string]struct {
		text  string
		code  int
		edits string
	}{
		"tagged":      {"From: a\nSubject: hi\n there\n\nx\n", 0, tagged(mail.ReplaceHeader{ID: 2, Value: " [external] hi\r\n there"})},
		"no subject":  {"From: a\n\nx\n", 0, tagged(mail.AddHeader{Name: "Subject", Value: " [external]", Bottom: true})},
		"8-bit":       {"Subject: \xff\xfe\n\n\x80\n", 0, tagged(mail.ReplaceHeader{ID: 1, Value: " [external] \xff\xfe"})},
		"again":       {"Subject: [external] again\n\nx\n", 0, "[]"},
		"harmless":    {part("Content-Disposition: attachment; filename=a.txt"), 0, "[]"},
		"exe":         {part("Content-Disposition: attachment; filename=\"a.txt.EXE\""), 552, "[]"},
		"name":        {part("Content-Type: application/x; name=a.js"), 552, "[]"},
		"dots":        {part("Content-Disposition: attachment; filename=\"a.exe. .\""), 552, "[]"},
		"rfc2231":     {part("Content-Disposition: attachment; filename*0*=utf-8''%61.e; filename*1=xe"), 552, "[]"},
		"rfc2047":     {part("Content-Disposition: attachment; filename=\"=?utf-8?B?YS5leGU=?=\""), 552, "[]"},
		"bad charset": {part("Content-Disposition: attachment; filename*=nonsense''%ff.txt"), 0, "[]"},
		"no base64":   {part("Content-Disposition: attachment; filename=\"=?utf-8?B?Y?=\""), 0, "[]"},
		"nested":      {nested.String(), 554, "[]"},
		"large":       {part("Content-Disposition: attachment; filename=a.exe") + strings.Repeat("x\n", 1<<20), 552, "[]"},
	} {
		v, err := p.Message(t.Context(), &mail.Session{}, message(test.text))
		if err != nil || v.Reply.Code != test.code || fmt.Sprint(v.Edits) != test.edits {
			t.Errorf("%s: %v %v %v, %v; want %d %s", name, v.Action, v.Reply, v.Edits, err, test.code, test.edits)
		}
	}
	if v, err := p.Message(t.Context(), &mail.Session{User: "ann"}, message("From: a\n\nx\n")); err != nil || len(v.Edits) > 0 {
		t.Errorf("from inside: %v, %v", v.Edits, err)
	}
}
