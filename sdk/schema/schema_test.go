package schema

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// everything has one field of each form that a configuration can have.
type everything struct {
	_       struct{}        `doc:"All there is."`
	Name    string          `mta:"name" doc:"what it is called"`
	On      bool            `mta:"on,optional"`
	Port    uint16          `mta:"port" default:"25"`
	Score   float64         `mta:"score" default:"-2.5"`
	Delay   time.Duration   `mta:"delay,optional" default:"5m" doc:"how long a new sender must wait"`
	Max     Size            `mta:"max" default:"35MiB"`
	Nets    []netip.Prefix  `mta:"nets" default:"127.0.0.0/8 ::1"`
	Bind    netip.Addr      `mta:"bind,optional"`
	Match   *regexp.Regexp  `mta:"match,optional"`
	File    string          `mta:"file,optional" type:"path"`
	From    mailbox         `mta:"from,optional" type:"address"`
	Action  string          `mta:"action" default:"tag" oneof:"tag reject"`
	Key     Secret          `mta:"key,optional"`
	Table   map[string]Size `mta:"table,optional"`
	Limits  limits          `mta:"limits,block" doc:"how much"`
	Proxy   *proxy          `mta:"proxy,block"`
	Rules   []rule          `mta:"rule,block"`
	private int
	Cache   int // no tag: the plugin's own
	shared
}

type shared struct {
	Labels []string `mta:"labels,optional"`
}

type limits struct {
	Connections int `mta:"connections" default:"10"`
}

type proxy struct {
	Host string `mta:"host"`
}

type rule struct {
	Domain string   `mta:"domain"`
	Then   []string `mta:"then,optional" oneof:"hold drop"`
}

// mailbox stands for mail.Address, which this package must not know.
type mailbox struct{ local, domain string }

func (m *mailbox) UnmarshalText(b []byte) error {
	var ok bool
	if m.local, m.domain, ok = strings.Cut(string(b), "@"); !ok {
		return errNoAt
	}
	return nil
}

var errNoAt = Problem{Summary: "no @"}

func TestOfTravelsAsJSON(t *testing.T) {
	s, err := Of(&everything{})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Schema
	if err := json.Unmarshal(wire, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*s, back) {
		t.Errorf("after JSON: %+v\nwant %+v", back, *s)
	}

	want := map[string]Attribute{
		"name":   {Name: "name", Type: "string", Doc: "what it is called", Required: true},
		"on":     {Name: "on", Type: "bool"},
		"port":   {Name: "port", Type: "int", Default: "25"},
		"score":  {Name: "score", Type: "float", Default: "-2.5"},
		"delay":  {Name: "delay", Type: "duration", Default: "5m", Doc: "how long a new sender must wait"},
		"max":    {Name: "max", Type: "size", Default: "35MiB"},
		"nets":   {Name: "nets", Type: "list(cidr)", Default: "127.0.0.0/8 ::1"},
		"bind":   {Name: "bind", Type: "ip"},
		"match":  {Name: "match", Type: "regex"},
		"file":   {Name: "file", Type: "path"},
		"from":   {Name: "from", Type: "address"},
		"action": {Name: "action", Type: "string", Default: "tag", OneOf: []string{"tag", "reject"}},
		"key":    {Name: "key", Type: "secret", Secret: true},
		"table":  {Name: "table", Type: "map(size)"},
		"labels": {Name: "labels", Type: "list(string)"},
	}
	for _, a := range back.Attributes {
		if !reflect.DeepEqual(a, want[a.Name]) {
			t.Errorf("got %+v\nwant %+v", a, want[a.Name])
		}
		delete(want, a.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if back.Doc != "All there is." || len(back.Blocks) != 3 {
		t.Fatalf("doc %q, blocks %+v", back.Doc, back.Blocks)
	}
	if b := back.Blocks[0]; b.Name != "limits" || b.Many || b.Required || b.Doc != "how much" || len(b.Schema.Attributes) != 1 {
		t.Errorf("limits: %+v", b)
	}
	if b := back.Blocks[2]; b.Name != "rule" || !b.Many || b.Required {
		t.Errorf("rule: %+v", b)
	}
}

func TestAttributeElem(t *testing.T) {
	for in, want := range map[string][2]string{
		"list(cidr)": {"list", "cidr"}, "map(string)": {"map", "string"}, "string": {"", "string"},
		"list": {"", "list"}, "list(": {"", "list("}, "list()": {"", "list()"}, "": {"", ""},
	} {
		if kind, elem := (Attribute{Type: in}).Elem(); kind != want[0] || elem != want[1] {
			t.Errorf("%q: %q %q", in, kind, elem)
		}
	}
}

type selfish struct {
	Again []selfish `mta:"again,block"`
}

func TestOfRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"nil":       nil,
		"no struct": 7,
		"bad name": struct {
			A int `mta:"A-b"`
		}{},
		"empty name": struct {
			A int `mta:",optional"`
		}{},
		"bad option": struct {
			A int `mta:"a,requierd"`
		}{},
		"unexported": struct {
			a int `mta:"a"`
		}{},
		"same name": struct {
			A, B int `mta:"a"`
		}{},
		"channel": struct {
			A chan int `mta:"a"`
		}{},
		"list of list": struct {
			A [][]string `mta:"a"`
		}{},
		"int map": struct {
			A map[int]string `mta:"a"`
		}{},
		"no block": struct {
			A int `mta:"a,block"`
		}{},
		"struct as attr": struct {
			A limits `mta:"a"`
		}{},
		"itself": selfish{},
		"block default": struct {
			A limits `mta:"a,block" default:"x"`
		}{},
		"needed block": struct {
			A proxy `mta:"a,block,optional"`
		}{},
		"bad default": struct {
			A time.Duration `mta:"a" default:"5"`
		}{},
		"list default": struct {
			A []netip.Addr `mta:"a" default:"::1 ::g"`
		}{},
		"map default": struct {
			A map[string]string `mta:"a" default:"x"`
		}{},
		"secret default": struct {
			A Secret `mta:"a" default:"hunter2"`
		}{},
		"not one of": struct {
			A string `mta:"a" default:"c" oneof:"a b"`
		}{},
		"one of none": struct {
			A string `mta:"a" oneof:" "`
		}{},
		"one of numbers": struct {
			A int `mta:"a" oneof:"1 2"`
		}{},
		"type": struct {
			A string `mta:"a" type:"color"`
		}{},
		"other type": struct {
			A Size `mta:"a" type:"duration"`
		}{},
		"uint range": struct {
			A uint8 `mta:"a" default:"256"`
		}{},
		"NaN": struct {
			A float64 `mta:"a" default:"NaN"`
		}{},
		"deep": struct {
			A []struct {
				B *struct {
					C int `mta:"c" default:"x"`
				} `mta:"b,block"`
			} `mta:"a,block"`
		}{},
	} {
		if s, err := Of(v); err == nil {
			t.Errorf("%s: taken as %+v", name, s)
		}
		if p := Decode([]byte("{}"), v); len(p) == 0 {
			t.Errorf("%s: decoded", name)
		}
	}
}
