package mail

import (
	"strings"
	"testing"
)

// TestMetaKeys keeps what the server knows of a message apart from what filters say.
func TestMetaKeys(t *testing.T) {
	for _, key := range MetaKeys() {
		if err := Continue(SetMeta{Key: key, Value: "1"}).Check(); err == nil {
			t.Errorf("a filter can set %q", key)
		}
	}
	if err := Continue(SetMeta{Key: "class", Value: "bulk"}).Check(); err != nil {
		t.Error(err)
	}
}

func TestEditsTaken(t *testing.T) {
	ann := MustParseAddress("ann@x.org")
	for _, e := range []Edit{
		AddHeader{Name: "X-Spam", Value: "yes"}, AddHeader{Name: "X-Empty"}, AddHeader{Name: "X!#", Value: "\r\n folded", Bottom: true},
		AddHeader{Name: "X", Value: "a\r\n\tb\r\n  c"}, AddHeader{Name: "X", Value: "é\xff\t"},
		AddHeader{Name: "X", Value: strings.Repeat("v", maxLine-3)}, AddHeader{Name: "X", Value: "v\r\n " + strings.Repeat("v", maxLine-1)},
		ReplaceHeader{ID: 7, Value: "x"}, RemoveHeader{}, SetSender{}, SetSender{ann}, DropRecipient{ann}, RewriteRecipient{ann, ann},
		AddRecipient{Recipient{Address: ann, Notify: NotifySuccess | NotifyDelay, Original: "rfc822;Bob@x.org"}},
		ReplaceBody{}, ReplaceBody{[]byte("a\r\n\r\nb")}, ReplaceBody{[]byte("\r\n")}, ReplaceBody{[]byte("\xff\x1b")},
		SetMeta{"spam", "5.1"}, SetMeta{"spam", ""},
	} {
		if err := Continue(e).Check(); err != nil {
			t.Errorf("%#v: %v", e, err)
		}
	}
}

func TestEditsRefused(t *testing.T) {
	ann := MustParseAddress("ann@x.org")
	for _, e := range []Edit{
		nil,
		AddHeader{Value: "no name"}, AddHeader{Name: "X Y"}, AddHeader{Name: "X:"}, AddHeader{Name: "X\r\nY"}, AddHeader{Name: "É"}, AddHeader{Name: "X\x7f"}, AddHeader{Name: strings.Repeat("x", 201)},
		AddHeader{Name: "X", Value: "a\r\nBcc: b"}, AddHeader{Name: "X", Value: "a\nb"}, AddHeader{Name: "X", Value: "a\n b"}, AddHeader{Name: "X", Value: "a\rb"}, AddHeader{Name: "X", Value: "a\x00"},
		AddHeader{Name: "X", Value: "a\r\n"}, AddHeader{Name: "X", Value: "a\r\n \r\n b"}, AddHeader{Name: "X", Value: "a\r\n \t"}, AddHeader{Name: "X", Value: "\x1b[2J"}, AddHeader{Name: "X", Value: "a\r\n \rb"}, AddHeader{Name: "X", Value: "a\r\r\n b"},
		AddHeader{Name: "X", Value: strings.Repeat("v", maxLine-2)}, AddHeader{Name: "X", Value: "v\r\n " + strings.Repeat("v", maxLine)},
		ReplaceHeader{ID: 1, Value: "a\r\nb"},
		AddRecipient{}, AddRecipient{Recipient{Address: ann, Original: "rfc822;a\r\nRCPT TO:<b>"}}, AddRecipient{Recipient{Address: ann, Original: "ann"}},
		AddRecipient{Recipient{Address: ann, Original: "rfc822;"}}, AddRecipient{Recipient{Address: ann, Original: "a b;c"}}, AddRecipient{Recipient{Address: ann, Original: "rfc822;" + strings.Repeat("a", 500)}},
		AddRecipient{Recipient{Address: ann, Notify: NotifyNever | NotifyDelay}}, AddRecipient{Recipient{Address: ann, Notify: 16}},
		DropRecipient{}, RewriteRecipient{Old: ann}, RewriteRecipient{New: ann},
		ReplaceBody{[]byte("a\nb\r\n")}, ReplaceBody{[]byte("\n")}, ReplaceBody{[]byte("a\rb\r\n")}, ReplaceBody{[]byte("a\r")}, ReplaceBody{[]byte("a\r\r\n")}, ReplaceBody{[]byte("a\x00\r\n")}, ReplaceBody{[]byte("a\r\n\n")},
		SetMeta{}, SetMeta{"a\n", ""}, SetMeta{"a", "\x00"}, SetMeta{"a", "\x1b"}, SetMeta{"a", "\xff"}, SetMeta{"a", strings.Repeat("a", maxMetaValue+1)}, SetMeta{strings.Repeat("a", maxMetaKey+1), ""},
	} {
		if Continue(SetMeta{"a", "b"}, e).Check() == nil {
			t.Errorf("%#v was taken", e)
		}
	}
}
