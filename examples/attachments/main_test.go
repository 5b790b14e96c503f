package main

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// letter is a message with one part beside its text.
func letter(header string, content []byte) mail.Content {
	return mail.Bytes([]byte("From: <a@b.example>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n" + header +
		"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString(content) + "\r\n--b--\r\n"))
}

func archive(t *testing.T, names ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		if _, err := z.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMessage(t *testing.T) {
	file := func(name string) string { return `Content-Disposition: attachment; filename="` + name + `"` }
	cases := map[string]struct {
		content mail.Content
		want    string // in the reply; "" is taken
	}{
		"a letter":           {mail.Bytes([]byte("Subject: x\r\n\r\nMZ is no program here\r\n")), ""},
		"a picture":          {letter(file("a.jpg"), []byte("\xff\xd8\xff\xe0JFIF")), ""},
		"a program":          {letter(file("setup.EXE"), []byte("x")), "a file called *.exe"},
		"a trailing dot":     {letter(file("setup.exe. "), []byte("x")), "a file called *.exe"},
		"an encoded name":    {letter("Content-Type: application/x; name*=utf-8''%EC%95%88.exe", []byte("x")), "a file called *.exe"},
		"a disguise":         {letter(file("holiday.jpg"), []byte("MZ\x90\x00")), "a Windows program"},
		"a disguise on Unix": {letter("Content-Type: text/plain", []byte("\x7fELF\x02\x00")), "a Linux program"},
		"an archive":         {letter(file("a.zip"), archive(t, "readme.txt")), ""},
		"one with a script":  {letter(file("a.zip"), archive(t, "readme.txt", "dir/x.js")), "an archive with a *.js"},
		"one without a name": {letter("Content-Type: application/zip", archive(t, "x.VBS")), "an archive with a *.vbs"},
		"half an archive":    {letter(file("a.zip"), archive(t, "x.js")[:10]), ""},
		"hostile name":       {letter(file("a.zip"), archive(t, "x.js\r\n")), ""},
		"no MIME":            {mail.Bytes([]byte("\r\n\r\n--\x00\xff")), ""},
		"empty":              {mail.Bytes(nil), ""},
		"endless multipart":  {mail.Bytes([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", 3000))), ""},
		"bad base64":         {mail.Bytes([]byte("Content-Transfer-Encoding: base64\r\n\r\n!!!!\r\n")), ""},
		"attached message":   {mail.Bytes([]byte("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n" + file("x.scr") + "\r\n\r\nx\r\n--i--\r\n--o--\r\n")), "a file called *.scr"},
	}
	for name, p := range map[string]*plugintest.Plugin{"memory": plugintest.New(t, sdk.Of(plugin()), nil), "process": plugintest.Exec(t, os.Args[0], nil)} {
		for what, c := range cases {
			v, err := p.Message(t.Context(), &mail.Session{}, &mail.Message{Content: c.content})
			if err != nil || (v.Action == mail.ActionReject) != (c.want != "") || !strings.Contains(v.Reply.Text, c.want) {
				t.Errorf("%s, %s: %v %v, %v; want %q", name, what, v.Action, v.Reply, err, c.want)
			}
		}
	}
}

func TestQuarantine(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), `{"action": "quarantine", "refuse": ["doc"]}`)
	v, err := p.Message(t.Context(), &mail.Session{}, &mail.Message{Content: letter(`Content-Disposition: attachment; filename="a.doc"`, []byte("x"))})
	if err != nil || v.Action != mail.ActionQuarantine || !strings.Contains(v.Reason, ".doc") {
		t.Errorf("%+v, %v", v, err)
	}
	if problems := plugintest.Problems(t, sdk.Of(plugin()), `{"action": "delete"}`); len(problems) == 0 {
		t.Error("delete was taken")
	}
}
