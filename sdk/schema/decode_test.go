package schema

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeFillsEverything(t *testing.T) {
	c := everything{private: 1, Cache: 2}
	problems := Decode([]byte(`{
		"name": "x", "on": true, "port": 587, "score": 1e1, "delay": "1d12h", "max": 1024,
		"nets": ["10.0.0.0/8", "2001:db8::7"], "bind": "192.0.2.1", "match": "^a+$", "file": "/etc/x", "from": "ann@example.com",
		"action": "reject", "key": "hunter2", "table": {"a": "1KiB", "b": 2}, "labels": [],
		"limits": {"connections": 3}, "proxy": {"host": "p"},
		"rule": [{"domain": "a", "then": ["hold", "drop"]}, {"domain": "b", "then": null}]
	}`), &c)
	if problems != nil {
		t.Fatal(problems)
	}
	if c.Name != "x" || !c.On || c.Port != 587 || c.Score != 10 || c.Delay != 36*time.Hour || c.Max != 1024 {
		t.Errorf("scalars: %+v", c)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::7/128")}; !reflect.DeepEqual(c.Nets, want) {
		t.Errorf("nets: %v", c.Nets)
	}
	if c.Bind.String() != "192.0.2.1" || !c.Match.MatchString("aa") || c.File != "/etc/x" || c.From != (mailbox{"ann", "example.com"}) {
		t.Errorf("semantic: %+v", c)
	}
	if c.Action != "reject" || string(c.Key) != "hunter2" || c.Table["a"] != 1024 || c.Table["b"] != 2 || c.Labels == nil {
		t.Errorf("rest: %+v", c)
	}
	if c.Limits.Connections != 3 || c.Proxy == nil || c.Proxy.Host != "p" {
		t.Errorf("blocks: %+v", c)
	}
	if want := []rule{{"a", []string{"hold", "drop"}}, {"b", nil}}; !reflect.DeepEqual(c.Rules, want) {
		t.Errorf("rules: %v", c.Rules)
	}
	if c.private != 1 || c.Cache != 2 {
		t.Errorf("fields without a tag were changed: %d %d", c.private, c.Cache)
	}
}

func TestDecodeDefaults(t *testing.T) {
	c := everything{On: true, Proxy: &proxy{}, Port: 1} // what was there before does not shine through
	if problems := Decode([]byte(`{"name": "", "delay": null}`), &c); problems != nil {
		t.Fatal(problems)
	}
	if c.On || c.Port != 25 || c.Score != -2.5 || c.Delay != 5*time.Minute || c.Max != 35<<20 || c.Action != "tag" {
		t.Errorf("scalars: %+v", c)
	}
	if len(c.Nets) != 2 || c.Match != nil || c.Bind.IsValid() || c.Table != nil || c.Labels != nil {
		t.Errorf("rest: %+v", c)
	}
	if c.Limits.Connections != 10 || c.Proxy != nil || c.Rules != nil {
		t.Errorf("blocks: %+v", c)
	}
	var empty struct{}
	for _, in := range []string{"", " \n", "{}", "null"} {
		if problems := Decode([]byte(in), &empty); problems != nil {
			t.Errorf("%q: %v", in, problems)
		}
	}
}

func TestDecodeTellsWhereAndWhat(t *testing.T) {
	for _, tc := range []struct{ in, path, words string }{
		{`{`, "", "object"},
		{`[]`, "", "object"},
		{`{"name": "x"} {}`, "", "object"},
		{`{}`, "name", "missing"},
		{`{"name": null}`, "name", "missing"},
		{`{"name": 5}`, "name", "string is wanted"},
		{`{"name": "x", "Name": "y"}`, "Name", "not known"},
		{`{"name": "x", "dealy": "5m"}`, "dealy", "delay"},
		{`{"name": "x", "private": 1}`, "private", "not known"},
		{`{"name": "x", "on": "true"}`, "on", "true or false"},
		{`{"name": "x", "port": 65536}`, "port", "too large"},
		{`{"name": "x", "port": -1}`, "port", "whole number"},
		{`{"name": "x", "port": 2.5}`, "port", "whole number"},
		{`{"name": "x", "port": "25"}`, "port", "number is wanted"},
		{`{"name": "x", "score": 1e999}`, "score", "not a number"},
		{`{"name": "x", "delay": "5"}`, "delay", "5m"},
		{`{"name": "x", "delay": 5}`, "delay", "string is wanted"},
		{`{"name": "x", "delay": "-5m"}`, "delay", "duration"},
		{`{"name": "x", "max": "10 parsecs"}`, "max", "size"},
		{`{"name": "x", "max": true}`, "max", "string"},
		{`{"name": "x", "nets": "10.0.0.0/8"}`, "nets", "list"},
		{`{"name": "x", "nets": ["::1", "10.0.0.1/8"]}`, "nets.1", "10.0.0.0/8"},
		{`{"name": "x", "nets": ["::ffff:10.0.0.0/104"]}`, "nets.0", "network"},
		{`{"name": "x", "nets": [null]}`, "nets.0", "string"},
		{`{"name": "x", "bind": "fe80::1%eth0"}`, "bind", "IP"},
		{`{"name": "x", "match": "("}`, "match", "regular"},
		{`{"name": "x", "file": ""}`, "file", "path"},
		{`{"name": "x", "from": "ann"}`, "from", "no @"},
		{`{"name": "x", "action": "drop"}`, "action", "tag, reject"},
		{`{"name": "x", "table": ["a"]}`, "table", "map"},
		{`{"name": "x", "table": {"k": {}}}`, "table.k", "wrong"},
		{`{"name": "x", "limits": {"connections": "many"}}`, "limits.connections", "number"},
		{`{"name": "x", "limits": []}`, "limits", "object"},
		{`{"name": "x", "proxy": {}}`, "proxy.host", "missing"},
		{`{"name": "x", "rule": {"domain": "a"}}`, "rule", "list"},
		{`{"name": "x", "rule": [{"domain": "a"}, {"domain": "b", "then": ["hold", "sell"]}]}`, "rule.1.then.1", "hold, drop"},
		{`{"name": "x", "rule": [7]}`, "rule.0", "object"},
	} {
		c := everything{Name: "before"}
		problems := Decode([]byte(tc.in), &c)
		if len(problems) != 1 {
			t.Errorf("%s: %v", tc.in, problems)
			continue
		}
		if got := strings.Join(problems[0].Path, "."); got != tc.path {
			t.Errorf("%s: path %q, want %q", tc.in, got, tc.path)
		}
		if !strings.Contains(problems[0].Error(), tc.words) {
			t.Errorf("%s: %q does not say %q", tc.in, problems[0].Error(), tc.words)
		}
		if !reflect.DeepEqual(c, everything{Name: "before"}) {
			t.Errorf("%s: changed the struct to %+v", tc.in, c)
		}
	}
}

func TestDecodeTellsAllAtOnce(t *testing.T) {
	var c everything
	problems := Decode([]byte(`{"port": "x", "zzz": 1, "aaa": 1, "rule": [{}, {}]}`), &c)
	var paths []string
	for _, p := range problems {
		paths = append(paths, strings.Join(p.Path, "."))
	}
	if got := strings.Join(paths, " "); got != "name port rule.0.domain rule.1.domain aaa zzz" {
		t.Errorf("paths: %s", got)
	}
}

func TestDecodeRequiredBlock(t *testing.T) {
	var c struct {
		P proxy `mta:"p,block"`
	}
	problems := Decode(nil, &c)
	if len(problems) != 1 || problems[0].Path[0] != "p" {
		t.Errorf("%v", problems)
	}
	s, err := Of(c)
	if err != nil || !s.Blocks[0].Required {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDecodeIntoNothing(t *testing.T) {
	for _, into := range []any{nil, everything{}, (*everything)(nil), new(int)} {
		if len(Decode([]byte("{}"), into)) != 1 {
			t.Errorf("%T was taken", into)
		}
	}
}

func TestDecodeHidesSecrets(t *testing.T) {
	var c struct {
		Keys []Secret `mta:"keys"`
	}
	for _, in := range []string{`{"keys": ["ok", 31337]}`, `{"keys": {"x": "31337"}}`} {
		for _, p := range Decode([]byte(in), &c) {
			if strings.Contains(p.Error(), "31337") {
				t.Errorf("%s: %v", in, p)
			}
		}
	}
}

func TestDecodeSharesNothingWithTheStruct(t *testing.T) {
	old := []rule{{Domain: "old"}}
	c := everything{Rules: old}
	if p := Decode([]byte(`{"name": "x", "rule": [{"domain": "new"}]}`), &c); p != nil {
		t.Fatal(p)
	}
	if old[0].Domain != "old" {
		t.Error("the slice that was there before has been written into")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name": "x", "rule": [{"domain": "a", "then": ["hold"]}], "max": "1GiB", "nets": ["::/0"]}`))
	f.Add([]byte(`{"name": "\ud800", "delay": "1w2d3h", "table": {"": 0}}`))
	f.Add([]byte(`{"rule": [[[[[[`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var c everything
		problems := Decode(in, &c)
		if len(problems) > 0 && !reflect.DeepEqual(c, everything{}) {
			t.Errorf("%q: changed the struct although there are problems", in)
		}
		if len(problems) == 0 && !json.Valid(in) && len(strings.TrimSpace(string(in))) > 0 {
			t.Errorf("%q is no JSON", in)
		}
	})
}
