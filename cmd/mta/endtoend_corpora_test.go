package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
)

const readerConfig = `
hostname = "localhost"
domains  = ["example.test"]
data_dir = "var"

listener "mx" {
  address = ["${MX}"]
  limits { message_size = "64MiB" }
}

plugin "users" {
  source = "builtin:users"
  config { file = "var/users" }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  auth   = plugin.users
  config {
    path     = "var/mail/{domain}/{user}"
    accounts = "var/users"
    imap {
      address       = ["${IMAP}"]
      insecure_auth = true
    }
    pop3 {
      address       = ["${POP3}"]
      insecure_auth = true
    }
  }
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
}

queue {
  min_free = "1MiB"
}
`

// TestHostileMails takes mails of our own that do what mails should not through delivery, IMAP, POP3 and mta mail.
func TestHostileMails(t *testing.T) {
	notShort(t)
	t.Parallel()
	r := newReader(t)
	r.deliver(mails(t, "testdata/hostile"))
	r.checkAll()
	for n := range r.mails {
		for _, args := range [][]string{{"read"}, {"read", "-headers"}, {"save", "-cid", "-dir", fmt.Sprintf("saved%d", n)}} {
			out, errs, code := r.mail(append([]string{args[0], fmt.Sprint(n + 1)}, args[1:]...)...)
			if code != 0 && !strings.Contains(errs, "has no attachment") {
				t.Errorf("%s: mta mail %v: %d, %s", r.mails[n].name, args, code, errs)
			}
			if strings.ContainsAny(out+errs, "\x1b\x07\u009b\x00") {
				t.Errorf("%s: mta mail %v moves the cursor: %q", r.mails[n].name, args, out)
			}
		}
	}
	r.nothingOutside()
}

// TestCorpora does the same with mails of strangers, but for what needs a login for each mail. They are no part of the
// project: MTA_CORPORA names their folder, and .ci/run looks for one beside the clone.
func TestCorpora(t *testing.T) {
	notShort(t)
	dir := os.Getenv("MTA_CORPORA")
	if dir == "" {
		t.Skip("MTA_CORPORA names no folder of mail")
	}
	t.Parallel()
	list := mails(t, dir)
	if len(list) == 0 {
		t.Fatalf("there is no mail in %s", dir)
	}
	t.Logf("%d mails", len(list))
	r := newReader(t)
	r.deliver(list)
	r.checkAll()
}

// sampleMail is a mail of a corpus.
type sampleMail struct {
	name string
	raw  []byte
}

// fieldFirst is how a file begins that is a mail, whatever its name.
var fieldFirst = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)

// mails reads every file that is a mail: by the end of its name, or without such an end by how it begins.
func mails(t *testing.T, dir string) (list []sampleMail) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		ext := filepath.Ext(path)
		if err != nil || d.IsDir() || ext != "" && ext != ".eml" && ext != ".msg" {
			return err
		}
		raw, err := os.ReadFile(path)
		if len(raw) > 0 && (ext != "" || fieldFirst.Match(raw)) {
			list = append(list, sampleMail{strings.TrimPrefix(path, dir+"/"), raw})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

var returnPath = regexp.MustCompile(`(?im)^Return-Path[ \t]*:.*\n([ \t].*\n)*`)

func withoutReturnPath(raw []byte) []byte {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	if len(head) == len(raw) {
		return returnPath.ReplaceAll(raw, nil)
	}
	return slices.Concat(bytes.TrimSuffix(returnPath.ReplaceAll(append(head[:len(head):len(head)], "\r\n"...), nil), []byte("\r\n")), []byte("\r\n\r\n"), body)
}

// reader is a system with one account, ann, and what came to her.
type reader struct {
	*system
	mx, imap, pop3 string
	mails          []sampleMail
	client         *imapclient.Client
}

func newReader(t *testing.T) *reader {
	t.Helper()
	p := freePorts(t, 3)
	r := &reader{mx: p[0], imap: p[1], pop3: p[2]}
	r.system = newSystem(t, readerConfig, map[string]string{"MX": r.mx, "IMAP": r.imap, "POP3": r.pop3})
	r.must(secretOfAnn+"\n", "user", "add", "ann@example.test")
	r.start()
	var err error
	if r.client, err = imapclient.DialInsecure(r.imap, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	if err := r.client.Login("ann@example.test", secretOfAnn).Wait(); err != nil {
		t.Fatal(err)
	}
	return r
}

const secretOfAnn = "a secret of ann"

// mail runs `mta mail` as ann.
func (r *reader) mail(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	var out, errs bytes.Buffer
	cmd := r.command(append([]string{"mail"}, args...)...)
	cmd.Env = append(cmd.Env, "MTA_MAIL_IMAP="+r.imap, "MTA_MAIL_USER=ann@example.test", "MTA_PASSWORD="+secretOfAnn)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// deliver sends the mails by SMTP, each line with CRLF. What SMTP does not allow (bare CR, NUL, lines without an end) is
// put into the mailbox by IMAP, as it is.
func (r *reader) deliver(list []sampleMail) {
	r.t.Helper()
	appended := 0
	s := mustDial(r.t, r.mx)
	for _, m := range list {
		if !bytes.Contains(m.raw, []byte("\r\n")) {
			m.raw = bytes.ReplaceAll(m.raw, []byte("\n"), []byte("\r\n"))
		}
		if bytes.HasSuffix(m.raw, []byte("\n")) && s.Send("<eve@sender.example> BODY=8BITMIME", "ann@example.test", m.raw) == nil {
			r.await(len(r.mails) + 1)
		} else {
			r.append(m)
			appended++
			s = mustDial(r.t, r.mx)
		}
		r.mails = append(r.mails, m)
	}
	r.t.Logf("%d came by SMTP, %d by APPEND", len(list)-appended, appended)
}

func (r *reader) append(m sampleMail) {
	r.t.Helper()
	cmd := r.client.Append("INBOX", int64(len(m.raw)), nil)
	_, err := cmd.Write(m.raw)
	if err = errors.Join(err, cmd.Close()); err == nil {
		_, err = cmd.Wait()
	}
	if err != nil {
		r.t.Fatalf("%s: %v", m.name, err)
	}
	r.await(len(r.mails) + 1)
}

// await waits until there are n messages, so that they have the numbers of their order.
func (r *reader) await(n int) {
	r.t.Helper()
	if !poll(func() bool {
		data, err := r.client.Status("INBOX", &imap.StatusOptions{NumMessages: true}).Wait()
		return err == nil && *data.NumMessages == uint32(n)
	}) {
		r.t.Fatalf("there are never %d messages", n)
	}
}

// checkAll lists, fetches, searches, reads and saves.
func (r *reader) checkAll() {
	r.t.Helper()
	out, errs, code := r.mail("list", "-limit", "0")
	if n := strings.Count(out, "\n"); code != 0 || n != len(r.mails) || strings.ContainsAny(out, "\x1b\x07\u009b\x00") {
		r.t.Errorf("mta mail list: %d, %d lines for %d mails: %s", code, n, len(r.mails), errs)
	}
	if out, errs, code := r.mail("list", "-json", "-limit", "0"); code != 0 || strings.Count(out, "\n") != len(r.mails) {
		r.t.Errorf("mta mail list -json: %d: %s", code, errs)
	}
	if _, err := r.client.Select("INBOX", nil).Wait(); err != nil {
		r.t.Fatal(err)
	}
	var raws [][]byte
	for i, m := range r.mails {
		raws = append(raws, r.check(imap.UID(i+1), m))
	}
	r.search(raws)
	r.pop(raws)
}

// check fetches a mail whole and by part, reads it as mta mail does, and saves what is in it.
func (r *reader) check(uid imap.UID, m sampleMail) []byte {
	r.t.Helper()
	whole := &imap.FetchItemBodySection{Peek: true}
	got, err := r.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{
		Envelope: true, Flags: true, RFC822Size: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection: []*imap.FetchItemBodySection{whole},
	}).Collect()
	if err != nil || len(got) != 1 || got[0].Envelope == nil {
		r.t.Fatalf("%s: %v", m.name, err)
	}
	raw := got[0].FindBodySection(whole)
	// The last server writes a Return-Path of its own (RFC 5321, 4.4).
	kept := bytes.HasSuffix(raw, m.raw) || bytes.HasSuffix(raw, withoutReturnPath(m.raw))
	if !kept || got[0].RFC822Size != int64(len(raw)) {
		r.t.Errorf("%s: its bytes have changed: %d of %d, RFC822.SIZE %d", m.name, len(raw), len(m.raw), got[0].RFC822Size)
	}
	r.parts(uid, m, raw, got[0].BodyStructure)
	r.read(uid, m, raw)
	return raw
}

// maxFetched is how many parts of one mail are fetched: enough to find what is wrong with one of thousands.
const maxFetched = 100

func (r *reader) parts(uid imap.UID, m sampleMail, raw []byte, structure imap.BodyStructure) {
	r.t.Helper()
	var paths [][]int
	structure.Walk(func(path []int, _ imap.BodyStructure) bool {
		paths = append(paths, slices.Clone(path))
		return len(paths) < maxFetched
	})
	for _, path := range paths {
		if len(path) == 0 {
			continue
		}
		for _, kind := range []imap.PartSpecifier{imap.PartSpecifierNone, imap.PartSpecifierMIME} {
			section := &imap.FetchItemBodySection{Part: path, Specifier: kind, Peek: true}
			got, err := r.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
			if err != nil || len(got) != 1 {
				r.t.Fatalf("%s: part %v: %v", m.name, path, err)
			}
			if !bytes.Contains(raw, got[0].FindBodySection(section)) {
				r.t.Errorf("%s: part %v is not in the mail", m.name, path)
			}
		}
		// A part that can't be decoded is a NO, and no more (RFC 3516, 4.1).
		binary := &imap.FetchItemBinarySection{Part: path, Peek: true}
		_, err := r.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BinarySection: []*imap.FetchItemBinarySection{binary}}).Collect()
		if no := new(imap.Error); err != nil && (!errors.As(err, &no) || no.Type != imap.StatusResponseTypeNo) {
			r.t.Fatalf("%s: part %v, decoded: %v", m.name, path, err)
		}
	}
}

func (r *reader) read(uid imap.UID, m sampleMail, raw []byte) {
	r.t.Helper()
	message := useragent.Read(raw)
	if text := useragent.SafeText(message.BodyText()); strings.ContainsAny(text, "\x1b\x07\x00") {
		r.t.Errorf("%s: its text moves the cursor", m.name)
	}
	message.Page()
	message.Quoted()
	var files []useragent.File
	for _, p := range append(message.Attachments(), message.Pictures()...) {
		files = append(files, useragent.File{Name: p.SaveName(), Data: p.Bytes()})
	}
	dir := r.path(fmt.Sprintf("files%d", uid))
	saved := 0
	if err := useragent.SaveFiles(dir, files, false, func(string, int) { saved++ }); err != nil || saved != len(files) {
		r.t.Errorf("%s: %d of %d files are saved: %v", m.name, saved, len(files), err)
	}
}

// search finds each mail by a plain subject, and all of them by what is in none.
func (r *reader) search(raws [][]byte) {
	r.t.Helper()
	began := time.Now()
	none, err := r.client.UIDSearch(&imap.SearchCriteria{Text: []string{"a text that is in no mail whatsoever"}}, nil).Wait()
	if err != nil || len(none.AllUIDs()) != 0 {
		r.t.Errorf("SEARCH TEXT: %v, %v", none, err)
	}
	r.t.Logf("a search in the text of all took %v", time.Since(began))
	for i, raw := range raws {
		subject := useragent.Read(raw).Header.Get("Subject")
		if len(subject) < 3 || len(subject) > 100 || strings.Contains(subject, "=?") || strings.ContainsFunc(subject, func(c rune) bool { return c < ' ' || c > '~' }) {
			continue
		}
		found, err := r.client.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: subject}}}, nil).Wait()
		if err != nil || !slices.Contains(found.AllUIDs(), imap.UID(i+1)) {
			r.t.Errorf("%s is not found by its subject %q: %v", r.mails[i].name, subject, err)
		}
	}
}

// oneDot is the dot that begins a line: whoever takes a lone LF for a line's end takes off one that nobody put there.
var oneDot = regexp.MustCompile(`\n\.`)

// pop fetches all by POP3; a dialogue ends where it should, whatever is in the mails.
func (r *reader) pop(raws [][]byte) {
	r.t.Helper()
	c, err := textproto.Dial("tcp", r.pop3)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	say := func(format string, args ...any) {
		if err := c.PrintfLine(format, args...); err != nil {
			r.t.Fatal(err)
		}
		if line, err := c.ReadLine(); err != nil || !strings.HasPrefix(line, "+OK") {
			r.t.Fatalf("%s: %q, %v", fmt.Sprintf(format, args...), line, err)
		}
	}
	if _, err := c.ReadLine(); err != nil {
		r.t.Fatal(err)
	}
	say("USER ann@example.test")
	say("PASS %s", secretOfAnn)
	for i, raw := range raws {
		say("RETR %d", i+1)
		b, err := c.ReadDotBytes() // it takes a lone LF for the end of a line too
		plain := oneDot.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"))
		if b = oneDot.ReplaceAll(b, []byte("\n")); err != nil || !bytes.Equal(bytes.TrimRight(b, "\n"), bytes.TrimRight(plain, "\n")) {
			r.t.Errorf("%s by POP3: %d bytes, not %d, %v", r.mails[i].name, len(b), len(plain), err)
		}
	}
	say("QUIT")
}

// nothingOutside wants what was saved in the folders that were named.
func (r *reader) nothingOutside() {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimRight(e.Name(), "0123456789")
		if !slices.Contains([]string{"saved", "files", "var", "mta.hcl", "log"}, name) {
			r.t.Errorf("%s was written outside", e.Name())
		}
	}
}
