package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// drawRecord makes a record with anything that a queue may hold in it.
func drawRecord(t *rapid.T) *queue.Record {
	when := func(name string) time.Time {
		return time.Unix(rapid.Int64Range(1, 4e9).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name+" ns")).UTC()
	}
	word := rapid.StringMatching(`[a-z0-9]{1,8}`)
	rec := &queue.Record{
		ID:       queue.ID(rapid.Uint64Range(1, 1<<62).Draw(t, "id")),
		Received: when("received"), Next: when("next"), Attempts: rapid.IntRange(0, 99).Draw(t, "attempts"),
		Warned: rapid.Bool().Draw(t, "warned"), Held: rapid.SampledFrom([]string{"", "why\nso \"quoted\"", "é"}).Draw(t, "held"),
		Envelope: mail.Envelope{
			EnvID: rapid.SampledFrom([]string{"", "QQ314159"}).Draw(t, "envid"), Ret: rapid.SampledFrom([]mail.Ret{0, 1, 2}).Draw(t, "ret"),
			Body: rapid.SampledFrom([]mail.BodyType{0, 1, 2}).Draw(t, "body"), SMTPUTF8: rapid.Bool().Draw(t, "utf8"), RequireTLS: rapid.Bool().Draw(t, "tls"),
			Priority: rapid.Int8Range(-mail.MaxPriority, mail.MaxPriority).Draw(t, "priority"),
		},
	}
	if rapid.Bool().Draw(t, "from") {
		rec.Envelope.From = mail.MustParseAddress(rapid.SampledFrom([]string{"ann@example.com", `"a b"@example.com`, "é@example.com"}).Draw(t, "sender"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "recipients") {
		r := queue.Recipient{State: rapid.SampledFrom([]queue.RecipientState{0, 1, 2, 3, 4}).Draw(t, "state")}
		r.Address = mail.MustParseAddress(word.Draw(t, "local") + "@" + word.Draw(t, "domain") + ".example")
		r.Notify = rapid.SampledFrom([]mail.Notify{0, 1, 2, 4, 8, 2 | 8, 2 | 4 | 8}).Draw(t, "notify")
		r.Original = rapid.SampledFrom([]string{"", "rfc822;bob@example.org"}).Draw(t, "original")
		if r.State != queue.Pending || rapid.Bool().Draw(t, "tried") {
			r.Attempts, r.Host, r.Time = 3, "mx.example", when("time")
			r.Reply = mail.Reply{Code: 451, Enhanced: mail.EnhancedCode{4, 7, 1}, Text: "later\nsays \"it\""}
		}
		rec.Recipients = append(rec.Recipients, r)
	}
	if rapid.Bool().Draw(t, "meta") {
		rec.Meta = map[string]string{"remote": "192.0.2.1:40000", "user": "ann"}
	}
	return rec
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		rec, body := drawRecord(t), []byte("Subject: x\r\n\r\nhello\x00\xff\r\n")
		rec.Size = int64(len(body))
		e := Of(rec, "there")
		if err := Write(dir, e, mail.Bytes(body)); err != nil {
			t.Fatal(err)
		}
		got, back, c, err := Read(filepath.Join(dir, e.ID+envelopeSuffix))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if b, err := io.ReadAll(mail.Reader(c)); err != nil || !bytes.Equal(b, body) || got.Store != "there" {
			t.Fatalf("%q, %v, %q", b, err, got.Store)
		}
		if !reflect.DeepEqual(rec, back) {
			t.Fatalf("\n%+v\n%+v", rec, back)
		}
	})
}

func TestMalformedIsRefusedWithItsPlace(t *testing.T) {
	rec := &queue.Record{
		ID: 1 << 30, Received: time.Unix(1e9, 0), Size: 2, Envelope: mail.Envelope{Priority: -3},
		Recipients: []queue.Recipient{
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("bob@example.net"), Notify: mail.NotifyDelay}, Reply: mail.NewReply(451, "4.7.1", "no")},
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("carol@example.net"), Notify: mail.NotifyFailure}},
		},
	}
	dir := t.TempDir()
	if err := Write(dir, Of(rec, "s"), mail.Bytes([]byte("hi"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, rec.ID.String()+envelopeSuffix)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := func(text string) int {
		before, _, found := bytes.Cut(whole, []byte(text))
		if !found {
			t.Fatalf("%q is not in %s", text, whole)
		}
		return 1 + bytes.Count(before, []byte("\n"))
	}
	for _, c := range []struct{ old, new, at, want string }{
		{`"format": 1`, `"format": 2`, `"format"`, "format 2 is not known"},
		{`"id": "`, `"id": "x`, `"id"`, "is not a queue ID"},
		{`"from": ""`, `"from": "nobody"`, `"from"`, ""},
		{`carol@example.net`, `carol`, `carol`, ""},
		{`"notify": "FAILURE"`, `"notify": "LATER"`, `"notify": "FAILURE"`, `"LATER" is none of NEVER`},
		{`"notify": "FAILURE"`, `"notify": "NEVER,DELAY"`, `carol`, ""},
		{`"enhanced": "4.7.1"`, `"enhanced": "4.7"`, `"reply"`, "not an enhanced code"},
		{`"size": 2`, `"size": "2"`, `"size"`, "cannot unmarshal"},
		{`"priority": -3`, `"priority": -10`, `"priority"`, "-10 is no priority"},
		{`"priority": -3`, `"priority": 300`, `"priority"`, "cannot unmarshal"},
		{`"size": 2`, `"sise": 2`, ``, `unknown field "sise"`},
		{`"received"`, `"received" 7`, `"received"`, "invalid character"},
	} {
		b := []byte(strings.Replace(string(whole), c.old, c.new, 1))
		_, _, err := Parse(path, b)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path+":") {
			t.Errorf("%s: %v", c.new, err)
			continue
		}
		if c.at != "" && !strings.HasPrefix(err.Error(), fmt.Sprintf("%s:%d:", path, line(c.at))) {
			t.Errorf("%s: %v, want line %d", c.new, err, line(c.at))
		}
	}
	for name, b := range map[string][]byte{"cut off": whole[:len(whole)/2], "twice": append(bytes.Clone(whole), whole...), "empty": nil, "null": []byte("null")} {
		if _, _, err := Parse(path, b); err == nil || !strings.HasPrefix(err.Error(), path+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, content := range map[string]string{"longer": "hi!", "other": "ho"} {
		if err := os.WriteFile(strings.TrimSuffix(path, envelopeSuffix)+contentSuffix, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Prove(dir); err == nil || !strings.Contains(err.Error(), contentSuffix) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"id":"6H0AEYPX40000","from":"","recipients":[{"address":"a@b","state":"pending"}],"size":0,"sha256":"","received":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rec, err := Parse("f", b)
		if err != nil {
			return
		}
		out, err := json.Marshal(Of(rec, e.Store))
		if err != nil {
			t.Fatal(err)
		}
		if _, again, err := Parse("f", out); err != nil || !reflect.DeepEqual(rec, again) {
			t.Errorf("%v\n%+v\n%+v", errors.Unwrap(err), rec, again)
		}
	})
}
