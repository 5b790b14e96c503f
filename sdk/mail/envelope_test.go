package mail

import (
	"strings"
	"testing"
)

func TestEnvelopeWords(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Body7Bit.String(), "7BIT"}, {Body8Bit.String(), "8BITMIME"}, {BodyBinary.String(), "BINARYMIME"},
		{RetUnset.String(), ""}, {RetFull.String(), "FULL"}, {RetHeaders.String(), "HDRS"},
		{Notify(0).String(), ""}, {NotifyNever.String(), "NEVER"}, {(NotifyNever | NotifyDelay).String(), "NEVER"},
		{(NotifyDelay | NotifySuccess).String(), "SUCCESS,DELAY"}, {(NotifySuccess | NotifyFailure | NotifyDelay).String(), "SUCCESS,FAILURE,DELAY"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

func TestNotifyWants(t *testing.T) {
	for _, tc := range []struct {
		n                       Notify
		success, failure, delay bool
	}{
		{0, false, true, true}, {NotifyNever, false, false, false}, {NotifySuccess, true, false, false}, {NotifyFailure | NotifyDelay, false, true, true},
	} {
		if tc.n.Wants(NotifySuccess) != tc.success || tc.n.Wants(NotifyFailure) != tc.failure || tc.n.Wants(NotifyDelay) != tc.delay {
			t.Errorf("%q", tc.n)
		}
	}
}

func TestEnvelopeCheck(t *testing.T) {
	ann := Recipient{Address: MustParseAddress("ann@x.org")}
	good := Envelope{To: []Recipient{ann}, EnvID: "QQ 314159", Ret: RetHeaders, Body: BodyBinary}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Envelope){
		"null recipient": func(e *Envelope) { e.To = append(e.To, Recipient{}) },
		"envid CRLF":     func(e *Envelope) { e.EnvID = "x\r\nRCPT TO:<b>" },
		"envid long":     func(e *Envelope) { e.EnvID = strings.Repeat("x", 101) },
		"envid bytes":    func(e *Envelope) { e.EnvID = "\xff" },
		"ret":            func(e *Envelope) { e.Ret = 3 },
		"priority":       func(e *Envelope) { e.Priority = -10 },
		"body":           func(e *Envelope) { e.Body = 3 },
		"orcpt":          func(e *Envelope) { e.To = []Recipient{{Address: ann.Address, Original: "rfc822;\u2028"}} },
	} {
		e := good.Clone()
		change(&e)
		if e.Check() == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestEnvelopeCloneSharesNothing(t *testing.T) {
	e := Envelope{To: []Recipient{{Original: "a;b"}}}
	c := e.Clone()
	c.To[0].Original = "c;d"
	if e.To[0].Original != "a;b" {
		t.Error("the clone shares its recipients")
	}
}

func TestEnvelopeNeedsUTF8(t *testing.T) {
	é, ann := MustParseAddress("é@x.org"), MustParseAddress("ann@é.org")
	for _, tc := range []struct {
		e    Envelope
		want bool
	}{
		{Envelope{}, false}, {Envelope{From: ann, To: []Recipient{{Address: ann}}}, false}, {Envelope{From: é}, true},
		{Envelope{From: ann, To: []Recipient{{Address: ann}, {Address: é}}}, true},
	} {
		if tc.e.NeedsUTF8() != tc.want {
			t.Errorf("%v", tc.e)
		}
	}
}
