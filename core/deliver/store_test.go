package deliver

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pabal-mta/mta/sdk/mail"
)

// store is a store of one function.
type store func(*mail.Delivery) ([]mail.Reply, error)

func (s store) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) { return s(d) }

type converter func(*mail.Conversion) (mail.Converted, error)

func (c converter) Convert(_ context.Context, m *mail.Conversion) (mail.Converted, error) {
	return c(m)
}

func TestStore(t *testing.T) {
	ok, full := mail.NewReply(250, "2.0.0", "stored"), mail.NewReply(452, "4.2.2", "full")
	busy := "tempfail store 451 4.3.0 the mailbox can't be reached now"
	for _, tt := range []struct {
		name    string
		replies []mail.Reply
		err     error
		want    string
	}{
		{"stored", []mail.Reply{ok, full}, nil, "delivered store 250 2.0.0 stored\ntempfail store 452 4.2.2 full"},
		{"error", nil, errors.New("open /var/mail/x: permission denied"), busy + "\n" + busy},
		{"too few", []mail.Reply{ok}, nil, busy + "\n" + busy},
		{"illegal", []mail.Reply{ok, {Code: 550, Text: "a\r\nb"}}, nil, "delivered store 250 2.0.0 stored\n" + busy},
		{"zero", []mail.Reply{{}, ok}, nil, busy + "\ndelivered store 250 2.0.0 stored"},
		{"354", []mail.Reply{mail.NewReply(354, "", "go"), ok}, nil, busy + "\ndelivered store 250 2.0.0 stored"},
		{"reply as error", nil, new(mail.NewReply(550, "5.2.1", "off")), "permfail store 550 5.2.1 off\npermfail store 550 5.2.1 off"},
		{"good reply as error", nil, new(ok), busy + "\n" + busy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := deliverer(t, Way{Kind: KindStore, Store: store(func(*mail.Delivery) ([]mail.Reply, error) { return tt.replies, tt.err })}, nil)
			outcomes := d.Attempt(t.Context(), job("a@y.example", "b@y.example"))
			if got := told(t, outcomes); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if o := outcomes[0]; o.Host != "" || (tt.err != nil && !errors.Is(o.Err, tt.err)) {
				t.Errorf("%+v", o)
			}
		})
	}
	d := deliverer(t, Way{Kind: KindStore, Store: store(func(*mail.Delivery) ([]mail.Reply, error) { panic("boom") })}, nil)
	outcomes := d.Attempt(t.Context(), job("a@y.example"))
	if got := told(t, outcomes); !strings.HasPrefix(got, "tempfail") || !strings.Contains(outcomes[0].Err.Error(), "boom") {
		t.Error(got)
	}
}

func TestReturnPath(t *testing.T) {
	for _, tt := range []struct{ name, in, from, want string }{
		{"plain", "A: 1\r\n\r\nbody", "ann@x.example", "Return-Path: <ann@x.example>\r\nA: 1\r\n\r\nbody"},
		{"null", "A: 1\r\n\r\nbody", "", "Return-Path: <>\r\nA: 1\r\n\r\nbody"},
		{"quoted", "A: 1\r\n\r\n", `"a> b"@x.example`, "Return-Path: <\"a> b\"@x.example>\r\nA: 1\r\n\r\n"},
		{"forged", "return-PATH: <e@vil>\r\n folded\r\nA: 1\r\nReturn-Path : x\r\n\r\nReturn-Path: body\r\n", "", "Return-Path: <>\r\nA: 1\r\n\r\nReturn-Path: body\r\n"},
		{"header only", "Return-Path: x\r\nA: 1\r\n", "", "Return-Path: <>\r\nA: 1\r\n"},
		{"no header", "\r\nbody", "", "Return-Path: <>\r\n\r\nbody"},
		{"empty", "", "", "Return-Path: <>\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var from mail.Address
			if tt.from != "" {
				from = mail.MustParseAddress(tt.from)
			}
			c, err := withReturnPath(mail.Bytes([]byte(tt.in)), from)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(mail.Reader(c)); string(got) != tt.want || err != nil {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
			if err := iotest.TestReader(mail.Reader(c), []byte(tt.want)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConvert(t *testing.T) {
	wide := mail.Bytes([]byte("Subject: x\r\n\r\nb\xe9\r\n"))
	encoded := mail.Bytes([]byte("Subject: x\r\n\r\nb=E9\r\n"))
	encode := converter(func(m *mail.Conversion) (mail.Converted, error) {
		if m.Target.EightBit {
			return mail.Converted{}, nil
		}
		return mail.Converted{Content: encoded, Body: mail.Body7Bit}, nil
	})
	sign := converter(func(m *mail.Conversion) (mail.Converted, error) {
		b, err := io.ReadAll(mail.Reader(m.Content))
		return mail.Converted{Content: mail.Bytes(append([]byte("Signed: "+m.Envelope.Body.String()+"\r\n"), b...)), Body: m.Envelope.Body}, err
	})
	lie := converter(func(*mail.Conversion) (mail.Converted, error) {
		return mail.Converted{Content: wide, Body: mail.Body7Bit}, nil
	})
	fail := converter(func(*mail.Conversion) (mail.Converted, error) { return mail.Converted{}, errors.New("crashed") })
	refuse := converter(func(*mail.Conversion) (mail.Converted, error) {
		return mail.Converted{}, new(mail.NewReply(554, "5.6.3", "it is signed"))
	})
	later := "tempfail convert 451 4.3.0 the message can't be converted for its next host now"
	for _, tt := range []struct {
		name       string
		ehlo       []string
		body       mail.BodyType
		converters []Converter
		want, got  string
	}{
		{"taken as it is", []string{"8BITMIME"}, mail.Body8Bit, nil, "delivered", "Subject: x\r\n\r\nb\xe9\r\n"},
		{"no converter", []string{}, mail.Body8Bit, nil, "permfail convert 554 5.6.3 the next host does not take 8BITMIME content, and nothing here converts the message", ""},
		{"binary", []string{"8BITMIME"}, mail.BodyBinary, nil, "permfail convert 554 5.6.3", ""},
		{"converted", []string{}, mail.Body8Bit, []Converter{encode}, "delivered", "Subject: x\r\n\r\nb=E9\r\n"},
		{"converted, then signed", []string{}, mail.Body8Bit, []Converter{encode, sign}, "delivered", "Signed: 7BIT\r\nSubject: x\r\n\r\nb=E9\r\n"},
		{"only signed", []string{"8BITMIME"}, mail.Body8Bit, []Converter{encode, sign}, "delivered", "Signed: 8BITMIME\r\nSubject: x\r\n\r\nb\xe9\r\n"},
		{"not asked", []string{"8BITMIME"}, mail.Body8Bit, []Converter{WhenNeeded(fail)}, "delivered", "Subject: x\r\n\r\nb\xe9\r\n"},
		{"asked when needed", []string{}, mail.Body8Bit, []Converter{WhenNeeded(encode)}, "delivered", "Subject: x\r\n\r\nb=E9\r\n"},
		{"left as it is", []string{}, mail.Body8Bit, []Converter{converter(func(*mail.Conversion) (mail.Converted, error) { return mail.Converted{}, nil })}, "permfail convert 554 5.6.3", ""},
		{"lies", []string{}, mail.Body8Bit, []Converter{lie}, later, ""},
		{"fails", []string{"8BITMIME"}, mail.Body8Bit, []Converter{fail}, later, ""},
		{"refuses", []string{"8BITMIME"}, mail.Body8Bit, []Converter{refuse}, "permfail convert 554 5.6.3 it is signed", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := listen(t, &peer{ehlo: tt.ehlo})
			way := smarthost(p)
			way.Converters = tt.converters
			d := deliverer(t, way, nil)
			for range 2 { // over a new connection, and over the same
				j := job("x@y.example")
				j.Content, j.Envelope.Body = wide, tt.body
				if got := told(t, d.Attempt(t.Context(), j)); !strings.HasPrefix(got, tt.want) {
					t.Error(got)
				}
			}
			if m := p.got(); (len(m) == 2) != (tt.got != "") || (len(m) > 0 && m[0].body != tt.got) || p.connections() != 1 {
				t.Errorf("%d connections, got %v", p.connections(), m)
			}
		})
	}
}

// For a mailbox the original form is wanted, and the Return-Path comes on top of what the converter made.
func TestConvertForStore(t *testing.T) {
	var got string
	way := Way{Kind: KindStore, Store: store(func(d *mail.Delivery) ([]mail.Reply, error) {
		b, err := io.ReadAll(mail.Reader(d.Content))
		got = d.ID + " " + string(b)
		return []mail.Reply{mail.NewReply(250, "2.0.0", "ok")}, err
	}), Converters: []Converter{converter(func(m *mail.Conversion) (mail.Converted, error) {
		if m.Target != (mail.Target{Mailbox: true, EightBit: true, Binary: true, UTF8: true}) {
			t.Errorf("%+v", m.Target)
		}
		return mail.Converted{Content: mail.Bytes([]byte("A: 1\r\n\r\n\x00")), Body: mail.BodyBinary}, nil
	})}}
	d := deliverer(t, way, nil)
	if s := told(t, d.Attempt(t.Context(), job("a@y.example"))); s != "delivered store 250 2.0.0 ok" {
		t.Error(s)
	}
	if got != "0001 Return-Path: <ann@here.example>\r\nA: 1\r\n\r\n\x00" {
		t.Errorf("%q", got)
	}
}
