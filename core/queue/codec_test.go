package queue

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// fullRecord has something in every field.
func fullRecord() *Record {
	when := time.Unix(1_800_000_000, 123456789)
	r := &Record{
		ID: 42 << 22,
		Envelope: mail.Envelope{
			From: mail.MustParseAddress("ann@example.com"), EnvID: "QQ314159", Ret: mail.RetHeaders,
			Body: mail.BodyBinary, SMTPUTF8: true, RequireTLS: true, Priority: -9,
		},
		Recipients: []Recipient{
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("bob@example.net")}},
			{Recipient: mail.Recipient{Address: mail.MustParseAddress(`"a b"@example.net`),
				Notify: mail.NotifySuccess | mail.NotifyDelay, Original: "rfc822;a@b"},
				State: Failed, Reply: mail.NewReply(550, "5.1.1", "no such mailbox\nreally"), Host: "mx.example.net", Time: when, Attempts: 3},
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("사람@[IPv6:2001:db8::1]")}, Attempts: 1},
		},
		Size: chunkSize + 1, Received: when, Next: when.Add(time.Hour), Age: 3 * time.Hour, Clock: 90 * 24 * time.Hour, Attempts: 4, Warned: true, Held: "looks odd",
		Meta: map[string]string{"user": "ann", "helo": "x", "": ""},
		sums: []uint32{1, 0xffffffff},
	}
	r.remember()
	return r
}

func TestRecordComesBackAsItWas(t *testing.T) {
	bare := &Record{ID: 1, Recipients: []Recipient{{Recipient: mail.Recipient{Address: mail.MustParseAddress("a@b")}}}, sums: []uint32{}}
	bare.remember()
	for name, r := range map[string]*Record{"full": fullRecord(), "bare": bare} {
		b := appendRecord(nil, r)
		got, err := decodeRecord(r.ID, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, r)
		}
		if again := appendRecord(nil, got); !bytes.Equal(again, b) {
			t.Errorf("%s: encoded again it differs", name)
		}
	}
}

func TestEveryPriorityComesBack(t *testing.T) {
	for p := int8(-mail.MaxPriority); p <= mail.MaxPriority; p++ {
		r := fullRecord()
		r.Envelope.Priority = p
		b := appendRecord(nil, r)
		if got, err := decodeRecord(r.ID, b); err != nil || got.Envelope.Priority != p || !got.Warned || !got.Envelope.RequireTLS {
			t.Errorf("%d: %+v, %v", p, got, err)
		}
	}
	r := fullRecord()
	r.Envelope.Priority = mail.MaxPriority + 1
	if _, err := decodeRecord(r.ID, appendRecord(nil, r)); err == nil {
		t.Error("a priority that does not exist was read")
	}
}

// TestRecordIsSmall holds what a usual message costs on disk, beside its content.
func TestRecordIsSmall(t *testing.T) {
	m := benchMessage(4 << 10)
	r := &Record{ID: 1, Envelope: m.Envelope, Meta: m.Meta, Received: time.Now(), Next: time.Now(),
		Recipients: []Recipient{{Recipient: m.Envelope.To[0]}}, sums: []uint32{1}, Size: 4 << 10}
	if n := len(appendRecord(nil, r)); n > 190 {
		t.Errorf("%d bytes", n)
	}
}

func TestDecodeFindsEveryFlippedBitAndEveryCut(t *testing.T) {
	r := fullRecord()
	whole := appendRecord(nil, r)
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			if _, err := decodeRecord(r.ID, b); err == nil {
				t.Fatalf("bit %d of byte %d flipped: no error", bit, i)
			}
		}
		if _, err := decodeRecord(r.ID, whole[:i]); err == nil {
			t.Fatalf("cut after %d bytes: no error", i)
		}
	}
	if _, err := decodeRecord(r.ID+1, whole); err == nil {
		t.Error("under another ID: no error")
	}
}

// seal gives a record's body the right checksum, so that the decoder has to look at what is in it.
func seal(id ID, body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), recordSum(id, body))
}

func TestDecodeRefusesWhatNoEncoderWrites(t *testing.T) {
	good := appendRecord(nil, fullRecord())
	good = good[:len(good)-4]
	change := func(i int, c byte) []byte {
		b := bytes.Clone(good)
		b[i] = c
		return b
	}
	cases := map[string][]byte{
		"a later version":               change(0, recordVersionAged+1),
		"an unknown body type":          change(2, 3),
		"an unknown RET":                change(3, 3),
		"an address with controls":      bytes.Replace(good, []byte("ann"), []byte("a\r\n"), 1),
		"a domain with a space":         bytes.Replace(good, []byte("example.com"), []byte("example com"), 1),
		"an address without local part": append([]byte{recordVersion, 0, 0, 0, 0, 1}, 'x'),
		"a byte too many":               append(bytes.Clone(good), 0),
		"a length beyond the end":       change(4, 0xff),
		"no recipients":                 {recordVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"many recipients":               append([]byte{recordVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	}
	for name, body := range cases {
		if r, err := decodeRecord(fullRecord().ID, seal(fullRecord().ID, body)); err == nil {
			t.Errorf("%s: %+v", name, r)
		} else if !strings.HasPrefix(err.Error(), "not a record") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	b := appendRecord(nil, fullRecord())
	f.Add(b[:len(b)-4])
	b = appendRecord(nil, &Record{Recipients: []Recipient{{Recipient: mail.Recipient{Address: mail.MustParseAddress("a@b")}}}})
	f.Add(b[:len(b)-4])
	f.Add([]byte{recordVersion})
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := decodeRecord(7, body); err == nil && len(body) < 5 {
			t.Error("too short to be a record")
		}
		r, err := decodeRecord(7, seal(7, body))
		if err != nil {
			return
		}
		again, err := decodeRecord(7, appendRecord(nil, r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("decoded, encoded and decoded:\n%+v\n%+v %v", r, again, err)
		}
	})
}

func FuzzMarks(f *testing.F) {
	f.Add(appendMarks(nil, []ID{5, 3, 1 << 60}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids := decodeMarks(nil, b); len(ids) > len(b) {
			t.Errorf("%d IDs from %d bytes", len(ids), len(b))
		}
	})
}
