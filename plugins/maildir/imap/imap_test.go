package imap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

func fetchBody(t testing.TB, c *imapclient.Client, uid imap.UID) (string, *imapclient.FetchMessageBuffer) {
	t.Helper()
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{
		UID: true, Flags: true, Envelope: true, RFC822Size: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, BodySection: []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	return string(msgs[0].FindBodySection(section)), msgs[0]
}

func flagsOf(t testing.TB, c *imapclient.Client, uid imap.UID) []imap.Flag {
	t.Helper()
	msgs, err := c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{Flags: true, UID: true}).Collect()
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	slices.Sort(msgs[0].Flags)
	return msgs[0].Flags
}

func appendTo(t testing.TB, c *imapclient.Client, folder, content string, options *imap.AppendOptions) *imap.AppendData {
	t.Helper()
	cmd := c.Append(folder, int64(len(content)), options)
	if _, err := cmd.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadMail(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1000.a.host", letter)
	r.deliver("ann", "999.b.host", strings.Replace(letter, "hello", "older", 1))
	c := r.login("ann", nil)
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil || data.NumMessages != 2 || data.UIDNext != 3 || data.UIDValidity == 0 {
		t.Fatalf("%+v, %v", data, err)
	}
	got, msg := fetchBody(t, c, 2)
	if got != letter {
		t.Errorf("%q", got)
	}
	if msg.RFC822Size != int64(len(letter)) || msg.Envelope.Subject != "안녕" || msg.Envelope.From[0].Addr() != "eve@example.org" ||
		msg.BodyStructure.MediaType() != "text/plain" || msg.Envelope.MessageID != "1@example.org" {
		t.Errorf("%+v %+v", msg, msg.Envelope)
	}
	if older, _ := fetchBody(t, c, 1); !strings.Contains(older, "older") {
		t.Errorf("the older message has not the lower UID: %q", older)
	}
	if f := flagsOf(t, c, 2); len(f) != 0 {
		t.Errorf("a PEEK marked it: %v", f)
	}
}

func TestRawMessagesKeepTheirBytes(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("ann", nil)
	for _, content := range []string{
		letter, "Subject: x\r\n\r\na\nb\r\nc\r\r\nd", "Subject: x\r\n\r\n" + strings.Repeat("x", 70_000) + "\r\n",
		"Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("y", 65_535-14)+"\r\n", 3), "no header\r\n", "\r\n",
	} {
		data := appendTo(t, c, "INBOX", content, nil)
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		got, msg := fetchBody(t, c, data.UID)
		if got != content || msg.RFC822Size != int64(len(content)) {
			t.Errorf("%d bytes of %d, size %d", len(got), len(content), msg.RFC822Size)
		}
	}
}

func TestFlagsAreInFileNames(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1000.a.host,S=10", letter)
	c := r.login("ann", nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagForwarded, "work"}}
	if _, err := c.Store(imap.UIDSetNum(1), &store, nil).Collect(); err != nil {
		t.Fatal(err)
	}
	if f := flagsOf(t, c, 1); !slices.Equal(f, []imap.Flag{"$Forwarded", `\Flagged`, `\Seen`, "work"}) {
		t.Errorf("%v", f)
	}
	cur := filepath.Join(r.dir, "ann", "cur")
	if _, err := os.Stat(filepath.Join(cur, "1000.a.host,S=10:2,FPSa")); err != nil {
		entries, _ := os.ReadDir(cur)
		t.Errorf("%v: %v", err, entries)
	}
	if b, _ := os.ReadFile(filepath.Join(r.dir, "ann", "dovecot-keywords")); string(b) != "0 work\n" {
		t.Errorf("keywords %q", b)
	}
	// Another program answers it: mutt, say.
	if err := os.Rename(filepath.Join(cur, "1000.a.host,S=10:2,FPSa"), filepath.Join(cur, "1000.a.host,S=10:2,RXa")); err != nil {
		t.Fatal(err)
	}
	// On a busy machine a folder that has just been read is not read again at once.
	for start := time.Now(); time.Since(start) < 2*time.Second && !slices.Contains(flagsOf(t, c, 1), imap.FlagAnswered); {
		if err := c.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if f := flagsOf(t, c, 1); !slices.Equal(f, []imap.Flag{`\Answered`, "work"}) {
		t.Errorf("%v", f)
	}
	store = imap.StoreFlags{Op: imap.StoreFlagsDel, Flags: []imap.Flag{"work"}}
	if _, err := c.Store(imap.UIDSetNum(1), &store, nil).Collect(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cur, "1000.a.host,S=10:2,RX")); err != nil {
		t.Errorf("a letter of others was not kept: %v", err)
	}
}

func TestUIDsSurvive(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"1.a.h", "2.a.h", "3.a.h"} {
		r.deliver("ann", name, letter)
	}
	c := r.login("ann", nil)
	before, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	// The last one goes; its UID must not come again.
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
	if err := c.Store(imap.SeqSetNum(3), &store, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if gone, err := c.Expunge().Collect(); err != nil || !slices.Equal(gone, []uint32{3}) {
		t.Fatalf("%v, %v", gone, err)
	}
	r.server.Close()
	r.deliver("ann", "0.late.h", letter)
	r.start(nil)
	c = r.login("ann", nil)
	after, err := c.Select("INBOX", nil).Wait()
	if err != nil || after.UIDValidity != before.UIDValidity || after.NumMessages != 3 || after.UIDNext != 5 {
		t.Fatalf("%+v after %+v, %v", after, before, err)
	}
	uids, err := c.UIDSearch(&imap.SearchCriteria{}, nil).Wait()
	if err != nil || !slices.Equal(uids.AllUIDs(), []imap.UID{1, 2, 4}) {
		t.Errorf("%v, %v", uids, err)
	}
}

func TestTwoSessions(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"1.a.h", "2.a.h", "3.a.h"} {
		r.deliver("ann", name, letter)
	}
	expunged, flagged := make(chan uint32, 10), make(chan imap.UID, 10)
	exists := make(chan uint32, 10)
	watcher := r.login("ann", &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Expunge: func(seq uint32) { expunged <- seq },
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				exists <- *d.NumMessages
			}
		},
		Fetch: func(m *imapclient.FetchMessageData) {
			if b, err := m.Collect(); err == nil {
				flagged <- b.UID
			}
		},
	}})
	actor := r.login("ann", nil)
	for _, c := range []*imapclient.Client{watcher, actor} {
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	idle, err := watcher.Idle()
	if err != nil {
		t.Fatal(err)
	}
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
	if _, err := actor.Store(imap.SeqSetNum(2), &store, nil).Collect(); err != nil {
		t.Fatal(err)
	}
	if uid := wait(t, flagged); uid != 2 {
		t.Errorf("flags of %d", uid)
	}
	if _, err := actor.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
	if seq := wait(t, expunged); seq != 2 {
		t.Errorf("%d went", seq)
	}
	start := time.Now()
	r.deliver("ann", "4.a.h", letter)
	if n := wait(t, exists); n != 3 || time.Since(start) > time.Second {
		t.Errorf("%d messages after %v", n, time.Since(start))
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
}

func wait[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was told")
	}
	return v
}

func TestFoldersCopyAndMove(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"1.a.h", "2.a.h"} {
		r.deliver("ann", name, letter)
	}
	c := r.login("ann", nil)
	if err := c.Create("일.공지", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "ann", ".&x3w-.&rPXJwA-", "maildirfolder")); err != nil {
		t.Error(err)
	}
	list, err := c.List("", "*", &imap.ListOptions{ReturnStatus: &imap.StatusOptions{NumMessages: true}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Mailbox)
	}
	if want := []string{"INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash", "일.공지", "일"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	copied, err := c.Copy(imap.SeqSetNum(1), "일.공지").Wait()
	if err != nil || copied.DestUIDs.String() != "1" {
		t.Fatalf("%+v, %v", copied, err)
	}
	moved, err := c.Move(imap.SeqSetNum(2), "Sent").Wait()
	if err != nil || moved.SourceUIDs.(imap.UIDSet).String() != "2" || moved.DestUIDs.(imap.UIDSet).String() != "1" {
		t.Fatalf("%+v, %v", moved, err)
	}
	for folder, want := range map[string]uint32{"INBOX": 1, "Sent": 1, "일.공지": 1} {
		st, err := c.Status(folder, &imap.StatusOptions{NumMessages: true}).Wait()
		if err != nil || *st.NumMessages != want {
			t.Errorf("%s: %+v, %v", folder, st, err)
		}
	}
	if err := c.Rename("일", "work", nil).Wait(); err == nil {
		t.Error("what is no folder was renamed")
	}
	if err := c.Rename("일.공지", "work", nil).Wait(); err != nil {
		t.Error(err)
	}
	if err := c.Delete("work").Wait(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"../bob", "a/b", "INBOX", ".", "a..b", strings.Repeat("x", 300), "INBOX.x"} {
		if err := c.Create(bad, nil).Wait(); err == nil {
			t.Errorf("%q was made", bad)
		}
	}
	var e *imap.Error
	if _, err := c.Copy(imap.SeqSetNum(1), "nowhere").Wait(); !errors.As(err, &e) || e.Code != imap.ResponseCodeTryCreate {
		t.Errorf("%v", err)
	}
}

func TestSearch(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	r.deliver("ann", "2.a.h", "From: b@x.org\r\nSubject: two\r\nContent-Type: text/plain; charset=euc-kr\r\nContent-Transfer-Encoding: base64\r\n\r\nvsiz5w==\r\n")
	r.deliver("ann", "3.a.h", "From: c@x.org\r\nSubject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nneedle=\r\n--b--\r\n")
	c := r.login("ann", nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	field := func(k, v string) []imap.SearchCriteriaHeaderField {
		return []imap.SearchCriteriaHeaderField{{Key: k, Value: v}}
	}
	for name, test := range map[string]struct {
		criteria imap.SearchCriteria
		want     []uint32
	}{
		"all":       {imap.SearchCriteria{}, []uint32{1, 2, 3}},
		"subject":   {imap.SearchCriteria{Header: field("Subject", "안녕")}, []uint32{1}},
		"from":      {imap.SearchCriteria{Header: field("From", "X.ORG")}, []uint32{2, 3}},
		"body":      {imap.SearchCriteria{Body: []string{"안녕"}}, []uint32{2}},
		"text":      {imap.SearchCriteria{Text: []string{"NEEDLE"}}, []uint32{3}},
		"not":       {imap.SearchCriteria{Not: []imap.SearchCriteria{{Header: field("Subject", "two")}}}, []uint32{1, 3}},
		"or":        {imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{{Header: field("Subject", "two")}, {Header: field("Subject", "three")}}}}, []uint32{2, 3}},
		"sent":      {imap.SearchCriteria{SentSince: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), SentBefore: time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)}, []uint32{1}},
		"old":       {imap.SearchCriteria{Before: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)}, nil},
		"larger":    {imap.SearchCriteria{Larger: int64(len(letter)) - 1}, []uint32{1}},
		"uid":       {imap.SearchCriteria{UID: []imap.UIDSet{{{Start: 2, Stop: 0}}}}, []uint32{2, 3}},
		"unseen":    {imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, []uint32{1, 2, 3}},
		"no header": {imap.SearchCriteria{Header: field("X-None", "")}, nil},
	} {
		data, err := c.Search(&test.criteria, nil).Wait()
		if err != nil || !slices.Equal(data.AllSeqNums(), test.want) {
			t.Errorf("%s: %v, %v", name, data, err)
		}
	}
}

const nested = "From: a@x.org\r\nContent-Type: multipart/mixed; boundary=\"out\"\r\n\r\npreamble\r\n--out\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n" +
	"--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--in--\r\n--out\r\nContent-Type: message/rfc822\r\n\r\n" +
	"Subject: inner\r\n\r\ninner body\r\n--out\r\nContent-Type: application/octet-stream; name=\"a;b.bin\"\r\nContent-Transfer-Encoding: base64\r\n" +
	"Content-Disposition: attachment; filename*=utf-8''%EC%95%88.bin\r\n\r\nAAEC/w==\r\n--out--\r\nepilogue\r\n"

func TestParts(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("ann", nil)
	uid := appendTo(t, c, "INBOX", nested, nil).UID
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		section imap.FetchItemBodySection
		want    string
	}{
		{imap.FetchItemBodySection{Part: []int{1, 1}}, "plain"},
		{imap.FetchItemBodySection{Part: []int{1, 2}}, "<p>html"},
		{imap.FetchItemBodySection{Part: []int{1, 2}, Specifier: imap.PartSpecifierMIME}, "Content-Type: text/html\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2}}, "Subject: inner\r\n\r\ninner body"},
		{imap.FetchItemBodySection{Part: []int{2}, Specifier: imap.PartSpecifierHeader}, "Subject: inner\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2}, Specifier: imap.PartSpecifierText}, "inner body"},
		{imap.FetchItemBodySection{Part: []int{2, 1}}, "inner body"},
		{imap.FetchItemBodySection{Part: []int{3}, Partial: &imap.SectionPartial{Offset: 2, Size: 3}}, "EC/"},
		{imap.FetchItemBodySection{Part: []int{3}, Partial: &imap.SectionPartial{Offset: 200, Size: 3}}, ""},
		{imap.FetchItemBodySection{Part: []int{9, 9}}, ""},
		{imap.FetchItemBodySection{Part: []int{1, 1, 1, 1}}, ""},
		{imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"from"}}, "From: a@x.org\r\n\r\n"},
	} {
		test.section.Peek = true
		msgs, err := c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{&test.section}}).Collect()
		if err != nil || string(msgs[0].BodySection[0].Bytes) != test.want {
			t.Errorf("%+v: %v, %v", test.section, msgs, err)
		}
	}
	_, msg := fetchBody(t, c, uid)
	bs, ok := msg.BodyStructure.(*imap.BodyStructureMultiPart)
	if !ok || len(bs.Children) != 3 || bs.Children[1].(*imap.BodyStructureSinglePart).MessageRFC822.Envelope.Subject != "inner" {
		t.Fatalf("%+v", msg.BodyStructure)
	}
	if p := bs.Children[2].(*imap.BodyStructureSinglePart); p.Params["name"] != "a;b.bin" || p.Extended.Disposition.Value != "attachment" {
		t.Errorf("%+v", p)
	}
	msgs, err := c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BinarySection: []*imap.FetchItemBinarySection{{Part: []int{3}}}}).Collect()
	if err != nil || !bytes.Equal(msgs[0].BinarySection[0].Bytes, []byte{0, 1, 2, 255}) {
		t.Errorf("%v, %v", msgs, err)
	}
	if f := flagsOf(t, c, uid); !slices.Equal(f, []imap.Flag{imap.FlagSeen}) {
		t.Errorf("after a FETCH without PEEK: %v", f)
	}
}

func TestLogins(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(nil)
	var e *imap.Error
	start := time.Now()
	if err := c.Login("ann", "wrong").Wait(); !errors.As(err, &e) || e.Code != imap.ResponseCodeAuthenticationFailed {
		t.Errorf("%v", err)
	}
	if time.Since(start) < 400*time.Millisecond {
		t.Error("a wrong login costs no time")
	}
	if err := c.Login("broken", "right").Wait(); !errors.As(err, &e) || e.Code != imap.ResponseCodeUnavailable {
		t.Errorf("%v", err)
	}
	if err := c.Login("bob", "right").Wait(); err != nil {
		t.Fatal(err)
	}
	r.deliver("ann", "1.a.h", letter)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 0 {
		t.Errorf("bob sees %+v, %v", data, err)
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	c := r.login("ann", nil)
	if _, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Fatal(err)
	}
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
	if _, err := c.Store(imap.SeqSetNum(1), &store, nil).Collect(); err == nil {
		t.Error("flags were changed")
	}
	if _, err := c.Expunge().Collect(); err == nil {
		t.Error("EXPUNGE was taken")
	}
	if _, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Collect(); err != nil {
		t.Error(err)
	}
	if err := c.UnselectAndExpunge().Wait(); err != nil {
		t.Error(err)
	}
	if f, _ := filepath.Glob(filepath.Join(r.dir, "ann", "new", "*")); len(f) != 1 {
		t.Errorf("%v", f)
	}
}

func TestFilesVanishAndForeignFiles(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"1.a.h", "2.a.h", "3.a.h"} {
		r.deliver("ann", name, letter)
	}
	cur := filepath.Join(r.dir, "ann", "cur")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(cur, "folder"), 0o700), os.WriteFile(filepath.Join(cur, ".hidden"), nil, 0o600),
		os.Symlink("/etc/passwd", filepath.Join(cur, "9.link")), os.WriteFile(filepath.Join(cur, "odd\nname:2,Z!"), []byte("x: y\n\nz"), 0o600),
		os.WriteFile(filepath.Join(cur, "1.a.h:2,S"), []byte("a second file of the name"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := r.login("ann", nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 4 {
		t.Fatalf("%+v, %v", data, err)
	}
	if err := os.Remove(filepath.Join(r.dir, "ann", "new", "2.a.h")); err != nil {
		t.Fatal(err)
	}
	msgs, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 4}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
	if err == nil || len(msgs) != 3 {
		t.Errorf("%d messages, %v", len(msgs), err)
	}
	if err := c.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	if n := c.Mailbox().NumMessages; n != 3 {
		t.Errorf("%d messages are left", n)
	}
}
