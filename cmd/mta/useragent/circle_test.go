package useragent_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
	"github.com/pabal-mta/mta/cmd/mta/useragent/mailtest"
)

const ann, bob, carol = "ann@example.test", "bob@example.test", "carol@example.test"

func start(t *testing.T) *mailtest.Server {
	t.Helper()
	s, err := mailtest.Start(ann, bob, carol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func account(t *testing.T, s *mailtest.Server, user string) *useragent.Account {
	t.Helper()
	t.Setenv("MTA_PASSWORD", mailtest.Password)
	a := &useragent.Account{User: user, IMAP: s.IMAP, Submit: s.SMTP}
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	return a
}

func send(t *testing.T, a *useragent.Account, l *useragent.Letter) {
	t.Helper()
	sub, err := a.Submission(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	to, err := l.Recipients()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Bytes(sub.Form())
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Send(l.From.Address, to, raw, l.NeedsUTF8(), nil); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, a *useragent.Account, folder string) *useragent.Mailbox {
	t.Helper()
	box, err := a.Mailbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	if err := box.Open(folder, false); err != nil {
		t.Fatal(err)
	}
	return box
}

func addr(t *testing.T, text string) []*mail.Address {
	t.Helper()
	list, err := useragent.ParseAddresses(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func addresses(list []*mail.Address) string {
	var out []string
	for _, a := range list {
		out = append(out, a.Address)
	}
	return strings.Join(out, " ")
}

// TestCircle sends a letter with everything in it, and reads, saves, answers and forwards it at the other end.
func TestCircle(t *testing.T) {
	s := start(t)
	annAccount, bobAccount := account(t, s, ann), account(t, s, bob)
	blob := make([]byte, 300_000)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(blob)
	picture := append([]byte("\x89PNG\r\n\x1a\n"), blob[:500]...)
	send(t, annAccount, &useragent.Letter{
		From: addr(t, "앤 <"+ann+">")[0], To: addr(t, bob), Cc: addr(t, carol), Bcc: addr(t, "dave@elsewhere.test"),
		Subject: "점심 — lunch", HTML: `<p>안녕 <a href="https://example.test/menu">menu</a> <img src="cid:logo" alt="logo"></p>`,
		Pictures:    []useragent.File{{Name: "logo.png", Type: "image/png", ID: "logo", Data: picture}},
		Attachments: []useragent.File{{Name: "보고서 최종.pdf", Type: "application/pdf", Data: blob}},
	})
	if wire := s.Sent()[0]; bytes.Contains(wire.Data, []byte("dave")) || !slices.Contains(wire.To, "dave@elsewhere.test") {
		t.Error("Bcc is on the wire, or was not sent to")
	}

	box := open(t, bobAccount, "INBOX")
	found, err := box.Find(useragent.Query{Unread: true})
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	var entry useragent.Entry
	if err := box.Entries(found, func(e useragent.Entry) error { entry = e; return nil }); err != nil {
		t.Fatal(err)
	}
	if entry.Subject != "점심 — lunch" || entry.From != "앤" || entry.Attachments != 1 || entry.Has(imap.FlagSeen) {
		t.Errorf("listed as %+v", entry)
	}
	m, _, err := box.Fetch(found[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "안녕 menu[1] [logo]\n\n[1] https://example.test/menu\n"; m.BodyText() != want {
		t.Errorf("text is %q", m.BodyText())
	}

	dir := t.TempDir()
	files := m.Attachments()
	if len(files) != 1 || files[0].SaveName() != "보고서 최종.pdf" {
		t.Fatalf("attachments: %d", len(files))
	}
	err = useragent.SaveFiles(dir, []useragent.File{{Name: files[0].SaveName(), Data: files[0].Bytes()}}, false, func(string, int) {})
	if err != nil {
		t.Fatal(err)
	}
	if saved, err := os.ReadFile(filepath.Join(dir, "보고서 최종.pdf")); err != nil || !bytes.Equal(saved, blob) {
		t.Errorf("saved %d bytes of %d, %v", len(saved), len(blob), err)
	}
	if p := m.Pictures(); len(p) != 1 || !bytes.Equal(p[0].Bytes(), picture) {
		t.Error("the picture has changed")
	}
	answerAndForward(t, s, bobAccount, m)
	if err := box.Mark(found, []imap.Flag{imap.FlagAnswered}, nil); err != nil {
		t.Fatal(err)
	}
}

// answerAndForward is the second half of the circle: carol, who got a copy, gets the answer and the message itself.
func answerAndForward(t *testing.T, s *mailtest.Server, bobAccount *useragent.Account, m *useragent.Message) {
	t.Helper()
	answer := m.Reply(bobAccount.Own(), true)
	if addresses(answer.To) != ann || addresses(answer.Cc) != carol || answer.Subject != "Re: 점심 — lunch" {
		t.Errorf("answer to %s, cc %s, %s", addresses(answer.To), addresses(answer.Cc), answer.Subject)
	}
	answer.From, answer.Text = addr(t, bob)[0], m.Quoted()+"\nGladly.\n"
	send(t, bobAccount, answer)
	passed := m.Forward(false)
	passed.From, passed.To = addr(t, bob)[0], addr(t, carol)
	send(t, bobAccount, passed)

	inbox := open(t, account(t, s, carol), "INBOX")
	found, err := inbox.Find(useragent.Query{Text: "점심"})
	if err != nil || len(found) == 0 {
		t.Fatalf("carol found %v, %v", found, err)
	}
	all, err := inbox.Find(useragent.Query{})
	if err != nil || len(all) != 3 {
		t.Fatalf("carol has %v, %v", all, err)
	}
	last, _, err := inbox.Fetch(all[2], nil)
	if err != nil {
		t.Fatal(err)
	}
	inner := last.Attachments()
	if len(inner) != 1 || inner[0].Type != "message/rfc822" && inner[0].Type != "application/octet-stream" {
		t.Fatalf("the forwarded message is not attached: %+v", inner)
	}
	if !bytes.Equal(inner[0].Bytes(), m.Raw) {
		t.Error("the forwarded message has changed")
	}
	second, _, err := inbox.Fetch(all[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	if ids := second.Header.MessageIDs("In-Reply-To"); len(ids) != 1 || ids[0] != m.Header.Get("Message-ID") {
		t.Errorf("In-Reply-To is %v", ids)
	}
}

// TestFolders finds folders by their use, makes one that is missing, moves and removes.
func TestFolders(t *testing.T) {
	s := start(t)
	a := account(t, s, ann)
	for range 3 {
		if err := s.Deliver(ann, []byte("Subject: hello\r\n\r\nhi\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	box := open(t, a, "INBOX")
	for use, want := range map[string]string{"Sent": mailtest.SentFolder, "Trash": mailtest.TrashFolder, "Drafts": "Drafts"} {
		if got, err := box.FolderFor(use); err != nil || got != want {
			t.Errorf("%s is %q, %v", use, got, err)
		}
	}
	if err := box.Append("Drafts", []byte("Subject: d\r\n\r\n"), []imap.Flag{imap.FlagDraft}, nil); err != nil {
		t.Errorf("a folder that is not there is not made: %v", err)
	}
	if err := box.Move([]imap.UID{1}, mailtest.TrashFolder); err != nil {
		t.Error(err)
	}
	if err := box.Remove([]imap.UID{2}); err != nil {
		t.Error(err)
	}
	if left, err := box.Find(useragent.Query{}); err != nil || !slices.Equal(left, []imap.UID{3}) {
		t.Errorf("left are %v, %v", left, err)
	}
	if _, _, err := box.Fetch(2, nil); !errors.Is(err, useragent.ErrNoMessage) {
		t.Errorf("a removed message: %v", err)
	}
	if there, err := box.Existing([]imap.UID{1, 2, 3, 9}); err != nil || !slices.Equal(there, []imap.UID{3}) {
		t.Errorf("there are %v, %v", there, err)
	}
}

// TestWatch is told of new mail, and ends with its context.
func TestWatch(t *testing.T) {
	s := start(t)
	box := open(t, account(t, s, ann), "INBOX")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go s.Deliver(ann, []byte("Subject: new\r\n\r\n"))
	for {
		found, err := box.Find(useragent.Query{After: box.Last()})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 {
			break
		}
		if err := box.Watch(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := box.Watch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("watching with no time left: %v", err)
	}
}

// TestRefusals: a wrong password is said, and one refused recipient means that nobody gets the letter.
func TestRefusals(t *testing.T) {
	s := start(t)
	a := account(t, s, ann)
	l := &useragent.Letter{From: addr(t, ann)[0], To: addr(t, bob), Cc: addr(t, "nobody@example.test"), Subject: "x"}
	sub, err := a.Submission(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	to, _ := l.Recipients()
	raw, err := l.Bytes(sub.Form())
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Send(ann, to, raw, false, nil); err == nil || !strings.Contains(err.Error(), "nobody@example.test") || len(s.Sent()) > 0 {
		t.Errorf("%v, and %d messages went out", err, len(s.Sent()))
	}
	wrong := account(t, s, bob)
	t.Setenv("MTA_PASSWORD", "wrong")
	if _, err := wrong.Mailbox(t.Context()); err == nil || !strings.Contains(err.Error(), "login as") {
		t.Errorf("IMAP: %v", err)
	}
	if _, err := wrong.Submission(t.Context()); err == nil || !strings.Contains(err.Error(), "login as") {
		t.Errorf("SMTP: %v", err)
	}
}

// TestSMTPUTF8 writes to an address with other letters than ASCII.
func TestSMTPUTF8(t *testing.T) {
	s := start(t)
	l := &useragent.Letter{From: addr(t, ann)[0], To: addr(t, "사람@예시.test"), Subject: "x", Text: "y"}
	send(t, account(t, s, ann), l)
	wire := s.Sent()[0]
	if !wire.UTF8 || wire.To[0] != "사람@xn--vv4b11d.test" || !bytes.Contains(wire.Data, []byte("To: 사람@xn--vv4b11d.test\r\n")) {
		t.Errorf("%v %s\n%s", wire.UTF8, wire.To, wire.Data)
	}
}
