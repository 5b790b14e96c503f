package imap

import (
	"bytes"
	"errors"
	"io"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/charset"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// Bounds on a SEARCH.
const (
	maxKeys    = 500              // of a criterion and what is in it
	searchTime = 30 * time.Second // then the answer is NO
	maxText    = 16 << 20         // of the decoded text of one message
)

// search is a SEARCH that runs.
type search struct {
	*session
	deadline time.Time

	seq    uint32 // the message that is being looked at
	msg    *box.Message
	header []byte // nil: not read yet
	whole  *box.Part
	text   string // decoded, in lower case; "" not yet
	free   func()
	err    error
}

// Search finds messages.
func (s *session) Search(kind imapserver.NumKind, c *imap.SearchCriteria, options *imap.SearchOptions) (*imap.SearchData, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(c)
	if err != nil {
		if options.ReturnSave {
			s.saved = nil // RFC 9051, 6.4.4.1
		}
		return nil, err
	}
	return s.result(kind, found, options), nil
}

// find returns the numbers of the messages that match.
func (s *session) find(c *imap.SearchCriteria) (found []uint32, err error) {
	if keys(c) > maxKeys {
		return nil, no(imap.ResponseCodeLimit, "Too many search keys")
	}
	var unread error // the trouble with one of those that can't be read
	q := search{session: s, deadline: time.Now().Add(s.server.search)}
	for seq := uint32(1); seq <= s.view.Len(); seq++ {
		if s.server.ctx.Err() != nil {
			return nil, no(imap.ResponseCodeUnavailable, "The server is going down")
		}
		if time.Now().After(q.deadline) {
			return nil, no(imap.ResponseCodeLimit, "The search takes too long")
		}
		ok, err := q.one(seq, c)
		if err != nil {
			return nil, s.answer("searching", err)
		}
		if ok {
			found = append(found, seq)
		}
		if q.err != nil && !errors.Is(q.err, box.ErrGone) {
			unread = q.err
		}
	}
	if unread != nil {
		s.account.Trouble("searching messages", unread)
	}
	return found, nil
}

// keys counts the keys of a criterion.
func keys(c *imap.SearchCriteria) int {
	n := 1 + len(c.Header) + len(c.Body) + len(c.Text) + len(c.Flag) + len(c.NotFlag) + len(c.UID) + len(c.SeqNum)
	for i := range c.Not {
		n += keys(&c.Not[i])
	}
	for i := range c.Or {
		n += keys(&c.Or[i][0]) + keys(&c.Or[i][1])
	}
	return n
}

func (s *session) result(kind imapserver.NumKind, found []uint32, options *imap.SearchOptions) *imap.SearchData {
	uids, seqs := imap.UIDSet{}, imap.SeqSet{}
	data := &imap.SearchData{Count: uint32(len(found))}
	for i, seq := range found {
		uid := s.view.At(seq).UID
		n := seq
		if kind == imapserver.NumKindUID {
			n = uid
		}
		uids.AddNum(imap.UID(uid))
		seqs.AddNum(seq)
		if i == 0 {
			data.Min = n
		}
		data.Max = n
	}
	data.All = imap.NumSet(seqs)
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	if options.ReturnSave {
		s.saved = s.toSave(found, uids, options)
	}
	return data
}

// toSave returns what $ stands for after a search: its first and its last message where nothing but those was asked for
// (RFC 9051, 6.4.4.1).
func (s *session) toSave(found []uint32, all imap.UIDSet, options *imap.SearchOptions) imap.UIDSet {
	if options.ReturnAll || options.ReturnCount || len(found) == 0 {
		return all
	}
	var saved imap.UIDSet
	if options.ReturnMin {
		saved.AddNum(imap.UID(s.view.At(found[0]).UID))
	}
	if options.ReturnMax {
		saved.AddNum(imap.UID(s.view.At(found[len(found)-1]).UID))
	}
	return saved
}

// one looks at one message. One that has gone, or that can't be read, is not found.
func (q *search) one(seq uint32, c *imap.SearchCriteria) (bool, error) {
	q.seq, q.msg, q.header, q.whole, q.text, q.free, q.err = seq, q.view.At(seq), nil, nil, "", nil, nil
	ok := q.matches(c)
	if q.free != nil {
		q.free()
	}
	if errors.Is(q.err, box.ErrBusy) {
		return false, q.err
	}
	return ok && q.err == nil, nil
}

// matches looks at what is cheap first.
func (q *search) matches(c *imap.SearchCriteria) bool {
	return q.numbers(c) && q.flags(c) && q.sizes(c) && q.dates(c) && q.headers(c) && q.texts(c) && q.others(c)
}

func (q *search) numbers(c *imap.SearchCriteria) bool {
	for _, set := range c.SeqNum {
		if !inRanges(q.seq, q.view.Len(), len(set), func(i int) (uint32, uint32) { return set[i].Start, set[i].Stop }) {
			return false
		}
	}
	last := q.view.At(q.view.Len()).UID
	for _, set := range c.UID {
		if imap.IsSearchRes(set) {
			set = q.saved
		}
		if !inRanges(q.msg.UID, last, len(set), func(i int) (uint32, uint32) { return uint32(set[i].Start), uint32(set[i].Stop) }) {
			return false
		}
	}
	return true
}

func inRanges(n, last uint32, count int, at func(int) (from, to uint32)) bool {
	for i := range count {
		from, to := at(i)
		if from == 0 {
			from = last
		}
		if to == 0 {
			to = last
		}
		if n >= min(from, to) && n <= max(from, to) {
			return true
		}
	}
	return false
}

func (q *search) flags(c *imap.SearchCriteria) bool {
	if len(c.Flag)+len(c.NotFlag) == 0 {
		return true
	}
	have := words(q.folder.Marks(q.msg))
	has := func(f imap.Flag) bool {
		return slices.ContainsFunc(have, func(h imap.Flag) bool { return strings.EqualFold(string(h), string(f)) })
	}
	return !slices.ContainsFunc(c.Flag, func(f imap.Flag) bool { return !has(f) }) && !slices.ContainsFunc(c.NotFlag, has)
}

func (q *search) sizes(c *imap.SearchCriteria) bool {
	if c.Larger == 0 && c.Smaller == 0 {
		return true
	}
	size, err := q.folder.Size(q.msg)
	q.note(err)
	return err == nil && (c.Larger == 0 || size > c.Larger) && (c.Smaller == 0 || size < c.Smaller)
}

func (q *search) note(err error) {
	if err != nil && q.err == nil {
		q.err = err
	}
}

func (q *search) dates(c *imap.SearchCriteria) bool {
	if !c.Since.IsZero() || !c.Before.IsZero() {
		date, err := q.folder.Date(q.msg)
		q.note(err)
		if err != nil || !between(date.UTC(), c.Since, c.Before) {
			return false
		}
	}
	if c.SentSince.IsZero() && c.SentBefore.IsZero() {
		return true
	}
	sent, err := mail.ParseDate(box.Get(q.readHeader(), "Date"))
	return err == nil && between(sent, c.SentSince, c.SentBefore)
}

// between compares days: neither the time nor the zone counts (RFC 9051, 6.4.4).
func between(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}

func (q *search) readHeader() []byte {
	if q.header == nil {
		b, err := q.folder.LoadHeader(q.msg)
		q.note(err)
		if q.header = b; b == nil {
			q.header = []byte{}
		}
	}
	return q.header
}

func (q *search) headers(c *imap.SearchCriteria) bool {
	for _, want := range c.Header {
		if !headerHas(q.readHeader(), want.Key, strings.ToLower(want.Value)) {
			return false
		}
	}
	return true
}

// headerHas says whether a field of that name holds a text, encoded words read; the empty text is in each.
func headerHas(header []byte, key, text string) bool {
	for f := range box.Fields(header) {
		if strings.EqualFold(f.Name, key) && strings.Contains(strings.ToLower(plainWords(f.Value())), text) {
			return true
		}
	}
	return false
}

func plainWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	if plain, err := wordDecoder().DecodeHeader(s); err == nil {
		return plain
	}
	return s
}

func (q *search) texts(c *imap.SearchCriteria) bool {
	if len(c.Body)+len(c.Text) == 0 {
		return true
	}
	if q.whole == nil {
		b, free, err := q.folder.Load(q.msg)
		if q.note(err); err != nil {
			return false
		}
		q.whole, q.free = box.Parse(b), free
	}
	for _, want := range c.Body {
		if !q.bodyHas(strings.ToLower(want)) {
			return false
		}
	}
	for _, want := range c.Text {
		if want = strings.ToLower(want); !anyHeaderHas(q.whole.Header, want) && !q.bodyHas(want) {
			return false
		}
	}
	return true
}

func anyHeaderHas(header []byte, text string) bool {
	for f := range box.Fields(header) {
		if strings.Contains(strings.ToLower(f.Name+": "+plainWords(f.Value())), text) {
			return true
		}
	}
	return false
}

func (q *search) bodyHas(text string) bool {
	if q.text == "" {
		var b strings.Builder
		gather(&b, q.whole)
		q.text = strings.ToLower(b.String()) + "\n"
	}
	return strings.Contains(q.text, text)
}

// gather writes the text of all parts, decoded, and the headers of messages within.
func gather(b *strings.Builder, p *box.Part) {
	if b.Len() > maxText {
		return
	}
	for _, child := range p.Parts {
		if p.IsMessage() {
			for f := range box.Fields(child.Header) {
				b.WriteString(f.Name + ": " + plainWords(f.Value()) + "\n")
			}
		}
		gather(b, child)
	}
	if p.Type != "text" || len(p.Parts) > 0 {
		return
	}
	raw, _ := io.ReadAll(io.LimitReader(decoder(p), maxText)) // what could be decoded is searched
	if r, err := charset.Reader(p.Param("charset"), bytes.NewReader(raw)); err == nil {
		if text, err := io.ReadAll(io.LimitReader(r, maxText)); err == nil {
			raw = text
		}
	}
	b.Write(raw)
	b.WriteByte('\n')
}

func (q *search) others(c *imap.SearchCriteria) bool {
	for i := range c.Not {
		if q.matches(&c.Not[i]) {
			return false
		}
	}
	for i := range c.Or {
		if !q.matches(&c.Or[i][0]) && !q.matches(&c.Or[i][1]) {
			return false
		}
	}
	return true
}
