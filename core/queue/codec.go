package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// A record on disk: a version byte, the fields below as varints and counted strings, and a CRC-32C over the ID and all
// of it. The ID itself is the key; having it under the checksum makes a record that turns up under another key a
// damaged one. A field is added to a version never, only as another version.
const (
	recordVersion     = 1
	recordVersionAged = 2 // with age and clock; a message has them once it was tried
)

// maxRecord bounds an encoded record, in bytes: some ten thousand recipients.
const maxRecord = 4 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The bits of the flags that stand before an envelope.
const (
	envUTF8 = 1 << iota
	envRequireTLS
	envWarned
)

// What is left of their byte holds the priority in zigzag order: 0, -1, 1, -2 and so on.
const envPriority = 3

// The bits of the flags that stand before a recipient.
const (
	rcptSameDomain = 1 << iota // as the one before
	rcptDSN                    // NOTIFY and ORCPT follow
	rcptHistory                // state, reply, host, time and attempts follow
)

// appendRecord appends the encoded record to b.
func appendRecord(b []byte, r *Record) []byte {
	start := len(b)
	version := byte(recordVersion)
	if r.Clock > 0 {
		version = recordVersionAged
	}
	b = append(b, version)
	b = appendEnvelope(b, r)
	b = binary.AppendUvarint(b, uint64(r.Size))
	b = appendTime(b, r.Received)
	b = appendTime(b, r.Next)
	if version == recordVersionAged {
		b = binary.AppendUvarint(b, uint64(max(r.Age, 0)))
		b = binary.AppendUvarint(b, uint64(r.Clock))
	}
	b = binary.AppendUvarint(b, uint64(max(r.Attempts, 0)))
	b = appendString(b, r.Held)
	b = appendRecipients(b, r.Recipients)
	b = appendMeta(b, r.Meta)
	for _, sum := range r.sums {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	return binary.LittleEndian.AppendUint32(b, recordSum(r.ID, b[start:]))
}

func recordSum(id ID, body []byte) uint32 {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], uint64(id))
	return crc32.Update(crc32.Checksum(key[:], castagnoli), castagnoli, body)
}

func appendEnvelope(b []byte, r *Record) []byte {
	e := &r.Envelope
	b = append(b, bitIf(e.SMTPUTF8, envUTF8)|bitIf(e.RequireTLS, envRequireTLS)|bitIf(r.Warned, envWarned)|
		byte(e.Priority<<1^e.Priority>>7)<<envPriority)
	b = append(b, byte(e.Body), byte(e.Ret))
	b = appendString(b, e.From.Local())
	b = appendString(b, e.From.Domain())
	return appendString(b, e.EnvID)
}

func appendRecipients(b []byte, recipients []Recipient) []byte {
	b = binary.AppendUvarint(b, uint64(len(recipients)))
	domain := ""
	for i := range recipients {
		r := &recipients[i]
		same := r.Address.Domain() == domain
		dsn := r.Notify != 0 || r.Original != ""
		history := r.State != Pending || r.Attempts != 0 || r.Reply != (mail.Reply{}) || r.Host != "" || !r.Time.IsZero()
		b = append(b, bitIf(same, rcptSameDomain)|bitIf(dsn, rcptDSN)|bitIf(history, rcptHistory))
		b = appendString(b, r.Address.Local())
		if !same {
			domain = r.Address.Domain()
			b = appendString(b, domain)
		}
		if dsn {
			b = append(b, byte(r.Notify))
			b = appendString(b, r.Original)
		}
		if history {
			b = appendHistory(b, r)
		}
	}
	return b
}

func appendHistory(b []byte, r *Recipient) []byte {
	b = append(b, byte(r.State))
	b = binary.AppendUvarint(b, uint64(max(r.Attempts, 0)))
	b = appendTime(b, r.Time)
	b = appendString(b, r.Host)
	b = binary.AppendUvarint(b, uint64(max(r.Reply.Code, 0)))
	for _, part := range r.Reply.Enhanced {
		b = binary.AppendUvarint(b, uint64(max(part, 0)))
	}
	return appendString(b, r.Reply.Text)
}

func appendMeta(b []byte, meta map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(meta)))
	if len(meta) == 0 {
		return b
	}
	var room [8]string // so that the usual few keys cost no allocation
	keys := room[:0]
	for k := range meta {
		keys = append(keys, k)
	}
	slices.Sort(keys) // one record has one encoding
	for _, k := range keys {
		b = appendString(b, k)
		b = appendString(b, meta[k])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes nanoseconds since 1970; the zero time has a value of its own that no clock shows.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, math.MinInt64)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

func bitIf(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

var errRecord = errors.New("not a record")

// decodeRecord reads what appendRecord wrote. It is total: whatever b holds, it returns a record or an error.
func decodeRecord(id ID, b []byte) (*Record, error) {
	if len(b) < 5 {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	body := b[:len(b)-4]
	if recordSum(id, body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("%w: its checksum is wrong", errRecord)
	}
	if body[0] != recordVersion && body[0] != recordVersionAged {
		return nil, fmt.Errorf("%w of version %d: it was written by another version of this program", errRecord, body[0])
	}
	r := &Record{ID: id}
	d := decoder{rest: body[1:]}
	d.envelope(r)
	r.Size = int64(d.uint(math.MaxInt64))
	r.Received = d.time()
	r.Next = d.time()
	if body[0] == recordVersionAged {
		r.Age = time.Duration(d.uint(math.MaxInt64))
		r.Clock = time.Duration(d.uint(math.MaxInt64))
	}
	r.Attempts = int(d.uint(math.MaxInt32))
	r.Held = d.string()
	d.recipients(r)
	d.meta(r)
	d.sums(r)
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes too many", len(d.rest))
	}
	if d.err != nil {
		return nil, d.err
	}
	r.remember()
	return r, nil
}

// decoder reads fields one after another. After the first failure it reads zeros.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errRecord, fmt.Sprintf(format, args...))
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("it ends early")
		return 0
	}
	c := d.rest[0]
	d.rest = d.rest[1:]
	return c
}

// uint reads a number up to limit.
func (d *decoder) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.fail("a number is out of range")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) time() time.Time {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("a time is out of range")
		return time.Time{}
	}
	d.rest = d.rest[n:]
	if v == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, v)
}

func (d *decoder) string() string {
	n := d.uint(uint64(len(d.rest)))
	if n > uint64(len(d.rest)) {
		d.fail("it ends early")
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

// address checks like any other maker of an Address, so that damage cannot become a header or a command.
func (d *decoder) address(local, domain string) mail.Address {
	a, err := mail.NewAddress(local, domain)
	if err != nil {
		d.fail("%v", err)
	}
	return a
}

func (d *decoder) envelope(r *Record) {
	e := &r.Envelope
	flags := d.byte()
	e.SMTPUTF8, e.RequireTLS, r.Warned = flags&envUTF8 != 0, flags&envRequireTLS != 0, flags&envWarned != 0
	zigzag := flags >> envPriority
	e.Priority = int8(zigzag>>1) ^ -int8(zigzag&1)
	e.Body, e.Ret = mail.BodyType(d.byte()), mail.Ret(d.byte())
	local, domain := d.string(), d.string()
	if local != "" || domain != "" {
		e.From = d.address(local, domain)
	}
	e.EnvID = d.string()
	if e.Body > mail.BodyBinary || e.Ret > mail.RetHeaders || e.Priority < -mail.MaxPriority || e.Priority > mail.MaxPriority {
		d.fail("a body type, RET or priority that does not exist")
	}
}

func (d *decoder) recipients(r *Record) {
	n := d.uint(uint64(len(d.rest) / 2)) // none has fewer than 2 bytes, so damage cannot ask for much memory
	if n == 0 {
		d.fail("no recipients")
		return
	}
	r.Recipients = make([]Recipient, 0, min(n, 1024))
	domain := ""
	for range n {
		if d.err != nil {
			return
		}
		r.Recipients = append(r.Recipients, Recipient{})
		domain = d.recipient(&r.Recipients[len(r.Recipients)-1], domain)
	}
}

func (d *decoder) recipient(r *Recipient, domain string) string {
	flags := d.byte()
	local := d.string()
	if flags&rcptSameDomain == 0 {
		domain = d.string()
	}
	r.Address = d.address(local, domain)
	if flags&rcptDSN != 0 {
		r.Notify, r.Original = mail.Notify(d.byte()), d.string()
	}
	if flags&rcptHistory != 0 {
		d.history(r)
	}
	return domain
}

func (d *decoder) history(r *Recipient) {
	r.State = RecipientState(d.byte())
	if r.State > Dropped {
		d.fail("a state that does not exist")
	}
	r.Attempts = int(d.uint(math.MaxInt32))
	r.Time = d.time()
	r.Host = d.string()
	r.Reply.Code = int(d.uint(999))
	for i := range r.Reply.Enhanced {
		r.Reply.Enhanced[i] = int(d.uint(999))
	}
	r.Reply.Text = d.string()
}

func (d *decoder) meta(r *Record) {
	n := d.uint(uint64(len(d.rest) / 2))
	if n == 0 {
		return
	}
	r.Meta = make(map[string]string, min(n, 64))
	for range n {
		if d.err != nil {
			return
		}
		k := d.string()
		r.Meta[k] = d.string()
	}
}

func (d *decoder) sums(r *Record) {
	n := chunks(r.Size)
	if int64(len(d.rest)) != 4*n {
		d.fail("%d bytes of checksums for %d chunks", len(d.rest), n)
		return
	}
	r.sums = make([]uint32, n)
	for i := range r.sums {
		r.sums[i] = binary.LittleEndian.Uint32(d.rest[4*i:])
	}
	d.rest = nil
}
