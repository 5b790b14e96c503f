package imap

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// maxSections bounds what one FETCH asks of each message, so that a line of a command can't ask for a message ten thousand
// times.
const maxSections = 64

// maxUnsent bounds what one FETCH decodes of a message without sending it, as a multiple of the message: to count it, and to
// get to where a partial section begins. What is sent is bounded by whoever has to take it.
const maxUnsent = 8

// fetch is a FETCH that runs.
type fetch struct {
	*session
	w       *imapserver.FetchWriter
	options *imap.FetchOptions
	load    bool // the whole message
	header  bool // its header
	seen    bool // it marks messages as seen
}

// Fetch writes what is asked for of each message. Messages that are gone or can't be read are left out, and the answer is
// NO then.
func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(options.BodySection)+len(options.BinarySection)+len(options.BinarySectionSize) > maxSections {
		return no(imap.ResponseCodeLimit, "Too many sections in one FETCH")
	}
	f := fetch{session: s, w: w, options: options}
	f.plan()
	flush := s.under.Hold()
	defer func() { err = errors.Join(err, flush()) }()
	var missed error
	for _, seq := range s.numbers(set) {
		broken, err := f.message(seq)
		if broken {
			return err
		}
		if err != nil && (missed == nil || errors.Is(missed, box.ErrGone)) {
			missed = err
		}
	}
	return s.answer("reading messages", missed)
}

func (f *fetch) plan() {
	o := f.options
	f.load = o.BodyStructure != nil || len(o.BinarySection)+len(o.BinarySectionSize) > 0
	for _, b := range o.BodySection {
		if len(b.Part) == 0 && b.Specifier == imap.PartSpecifierHeader {
			f.header = true
		} else {
			f.load = true
		}
		f.seen = f.seen || !b.Peek
	}
	for _, b := range o.BinarySection {
		f.seen = f.seen || !b.Peek
	}
	f.seen = f.seen && !f.readOnly
}

// content is what has been read of a message.
type content struct {
	size   int64
	date   time.Time
	whole  *box.Part // nil unless needed
	about  *imap.Envelope
	all    []byte
	header []byte
	binary []binary
	sizes  []uint32
	counts map[*box.Part]int64 // decoded parts
	unsent int64               // bytes decoded, or to be decoded, that are not sent
}

// binary is a section that is written without its transfer encoding. It is decoded while it is written, and never held.
type binary struct {
	part         *box.Part // nil: all of plain
	plain        []byte
	offset, size int64
}

// message answers for one message. Broken says that the connection can't be used any more.
func (f *fetch) message(seq uint32) (broken bool, err error) {
	msg := f.view.At(seq)
	if !f.load && !f.header && f.view.Gone(msg) { // nothing else would notice
		return false, box.ErrGone
	}
	c, free, err := f.read(msg)
	if err != nil {
		return false, err
	}
	defer free()
	flags := f.options.Flags
	var unmarked error
	if f.seen && f.folder.Marks(msg).Flags&box.Seen == 0 {
		unmarked = f.folder.Mark(msg, box.Add, box.Seen) // the message is shown all the same
		flags = true                                     // RFC 9051, 6.4.5: the change is part of the answer
	}
	if err := f.write(seq, msg, c, flags); err != nil {
		return true, err
	}
	if flags {
		f.view.Told(seq)
	}
	return false, unmarked
}

// read reads what is needed before anything is written: a response that has begun can't be taken back.
func (f *fetch) read(msg *box.Message) (c *content, free func(), err error) {
	c, free = &content{}, func() {}
	switch {
	case f.load:
		if c.all, free, err = f.folder.Load(msg); err != nil {
			return nil, nil, err
		}
		c.whole = box.Parse(c.all)
		c.header = c.whole.Header
	case f.header:
		if c.header, err = f.folder.LoadHeader(msg); err != nil {
			return nil, nil, err
		}
	}
	err = f.envelope(msg, c)
	if err == nil {
		err = f.measure(msg, c)
	}
	if err != nil {
		free()
		return nil, nil, err
	}
	return c, free, nil
}

// envelope finds what the header tells, which mail programs ask for of every message again and again: it is kept.
func (f *fetch) envelope(msg *box.Message, c *content) (err error) {
	if !f.options.Envelope {
		return nil
	}
	var known bool
	if c.about, known = f.folder.Kept(msg).(*imap.Envelope); known {
		return nil
	}
	header := c.header
	if header == nil {
		if header, err = f.folder.LoadHeader(msg); err != nil {
			return err
		}
	}
	c.about = envelope(header)
	f.folder.Keep(msg, c.about, sizeOf(c.about))
	return nil
}

func (f *fetch) measure(msg *box.Message, c *content) (err error) {
	if f.options.RFC822Size {
		if c.size, err = f.folder.Size(msg); err != nil {
			return err
		}
	}
	if f.options.InternalDate {
		if c.date, err = f.folder.Date(msg); err != nil {
			return err
		}
	}
	for _, b := range f.options.BinarySection {
		section, err := c.section(b.Part, b.Partial)
		if err != nil {
			return err
		}
		c.binary = append(c.binary, section)
	}
	for _, b := range f.options.BinarySectionSize {
		section, err := c.section(b.Part, nil)
		if err != nil {
			return err
		}
		c.sizes = append(c.sizes, uint32(section.size))
	}
	return nil
}

// section finds what BINARY asks for (RFC 3516). One that is not there is empty.
func (c *content) section(path []int, partial *imap.SectionPartial) (binary, error) {
	if len(path) == 0 {
		plain := cut(c.all, partial)
		return binary{plain: plain, size: int64(len(plain))}, nil
	}
	p := c.whole.Find(path)
	if p == nil {
		return binary{}, nil
	}
	switch encoding(p) {
	case "7bit", "8bit", "binary":
		plain := cut(p.Body, partial)
		return binary{plain: plain, size: int64(len(plain))}, nil
	case "base64", "quoted-printable":
	default:
		return binary{}, no(imap.ResponseCodeUnknownCTE, "The part can't be decoded")
	}
	size, err := c.count(p)
	if err != nil {
		return binary{}, err
	}
	from, to := bounds(size, partial)
	return binary{part: p, offset: from, size: to - from}, c.spend(from)
}

// count returns how long a part is without its transfer encoding. Each part is counted once.
func (c *content) count(p *box.Part) (int64, error) {
	if n, known := c.counts[p]; known {
		return n, nil
	}
	if err := c.spend(int64(len(p.Body))); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, decoder(p))
	if err != nil {
		return 0, no(imap.ResponseCodeUnknownCTE, "The part can't be decoded")
	}
	if c.counts == nil {
		c.counts = make(map[*box.Part]int64)
	}
	c.counts[p] = n
	return n, nil
}

// spend takes n bytes of what may be decoded without being sent.
func (c *content) spend(n int64) error {
	if c.unsent += n; c.unsent > maxUnsent*int64(len(c.all)) {
		return no(imap.ResponseCodeLimit, "Too much to decode in one FETCH, ask for fewer sections")
	}
	return nil
}

// writeTo writes all of the section.
func (b binary) writeTo(w io.WriteCloser) error {
	if b.part == nil {
		return writeLiteral(w, b.plain)
	}
	r := decoder(b.part)
	_, err := io.CopyN(io.Discard, r, b.offset)
	if err == nil {
		_, err = io.CopyN(w, r, b.size)
	}
	return errors.Join(err, w.Close())
}

func (f *fetch) write(seq uint32, msg *box.Message, c *content, flags bool) error {
	o, w := f.options, f.w.CreateMessage(seq)
	if o.UID {
		w.WriteUID(imap.UID(msg.UID))
	}
	if flags {
		w.WriteFlags(words(f.folder.Marks(msg)))
	}
	if o.InternalDate {
		w.WriteInternalDate(c.date.UTC())
	}
	if o.RFC822Size {
		w.WriteRFC822Size(c.size)
	}
	if o.Envelope {
		w.WriteEnvelope(c.about)
	}
	if o.BodyStructure != nil {
		w.WriteBodyStructure(structure(c.whole))
	}
	for _, b := range o.BodySection {
		data := cut(section(c, b), b.Partial)
		lit := w.WriteBodySection(b, int64(len(data)))
		if err := writeLiteral(lit, data); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	for i, b := range o.BinarySection {
		lit := w.WriteBinarySection(b, c.binary[i].size)
		if err := c.binary[i].writeTo(lit); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	for i, b := range o.BinarySectionSize {
		w.WriteBinarySectionSize(b, c.sizes[i])
	}
	return w.Close()
}

func writeLiteral(w io.WriteCloser, data []byte) error {
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}

// cut returns the part of a section that is asked for.
func cut(b []byte, p *imap.SectionPartial) []byte {
	from, to := bounds(int64(len(b)), p)
	return b[from:to]
}

// bounds returns where the part of a section of n bytes that is asked for begins and ends.
func bounds(n int64, p *imap.SectionPartial) (from, to int64) {
	switch {
	case p == nil:
		return 0, n
	case p.Offset < 0 || p.Size < 0 || p.Offset >= n:
		return 0, 0
	}
	return p.Offset, p.Offset + min(p.Size, n-p.Offset)
}

// section returns a section of a message (RFC 9051, 6.4.5.1). One that is not there is empty.
func section(c *content, b *imap.FetchItemBodySection) []byte {
	if len(b.Part) == 0 {
		switch b.Specifier {
		case imap.PartSpecifierHeader:
			return filter(c.header, b)
		case imap.PartSpecifierText:
			return c.whole.Body
		case imap.PartSpecifierNone:
			return c.all
		}
		return nil
	}
	p := c.whole.Find(b.Part)
	if p == nil {
		return nil
	}
	inner := p.IsMessage() && len(p.Parts) == 1
	switch {
	case b.Specifier == imap.PartSpecifierNone:
		return p.Body
	case b.Specifier == imap.PartSpecifierMIME:
		return p.Header
	case b.Specifier == imap.PartSpecifierHeader && inner:
		return filter(p.Parts[0].Header, b)
	case b.Specifier == imap.PartSpecifierText && inner:
		return p.Parts[0].Body
	}
	return nil
}

// filter returns the fields of a header that are asked for, and the empty line.
func filter(header []byte, b *imap.FetchItemBodySection) []byte {
	names, keep := b.HeaderFields, true
	if len(names) == 0 {
		names, keep = b.HeaderFieldsNot, false
	}
	if len(names) == 0 {
		return header
	}
	var out bytes.Buffer
	for f := range box.Fields(header) {
		named := slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, f.Name) })
		if named == keep {
			out.Write(f.Raw)
		}
	}
	out.WriteString("\r\n")
	return out.Bytes()
}
