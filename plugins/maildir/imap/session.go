package imap

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// session is one connection. The library calls one method at a time, but for an Idle whose connection has broken.
type session struct {
	server *Server
	conn   *imapserver.Conn
	under  *gate.Conn
	wrong  int // logins

	mu       sync.Mutex
	account  *box.Account
	folder   *box.Mailbox // the selected one; nil: none
	name     string
	view     *box.View
	readOnly bool
	saved    imap.UIDSet // what $ stands for (RFC 5182)
}

func (s *Server) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	under := gate.Under(c.NetConn())
	if under == nil {
		return nil, nil, errors.New("a connection that did not come through the gate")
	}
	if !s.enter() {
		return nil, nil, net.ErrClosed
	}
	return &session{server: s, conn: c, under: under}, nil, nil
}

// Close ends the session. The library calls it once.
func (s *session) Close() error {
	defer s.server.sessions.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unselect()
	if s.account != nil {
		s.account.Close()
		s.account = nil
	}
	return nil
}

func no(code imap.ResponseCode, text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

// answer turns an error into what the client is told; what is trouble of ours goes to the log.
func (s *session) answer(doing string, err error) error {
	var told *imap.Error
	switch {
	case err == nil || errors.As(err, &told):
		return err
	case errors.Is(err, box.ErrNoFolder):
		return no(imap.ResponseCodeNonExistent, "There is no such folder")
	case errors.Is(err, box.ErrExists):
		return no(imap.ResponseCodeAlreadyExists, "There is a folder of that name")
	case errors.Is(err, box.ErrName), errors.Is(err, box.ErrInbox):
		return no(imap.ResponseCodeCannot, "That can't be done to a folder of this name")
	case errors.Is(err, box.ErrTooMany), errors.Is(err, box.ErrKeywords), errors.Is(err, box.ErrBusy):
		return no(imap.ResponseCodeLimit, err.Error())
	case errors.Is(err, box.ErrGone):
		return no("EXPUNGEISSUED", "Some messages have been removed")
	case errors.Is(err, box.ErrQuota):
		return no(imap.ResponseCodeOverQuota, "The mailbox is full; remove something first")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return no(imap.ResponseCodeOverQuota, "The mail store is full")
	}
	s.account.Trouble(doing, err)
	return errTrouble()
}

func errTrouble() error {
	return no(imap.ResponseCodeUnavailable, "The mail store has trouble, try again later")
}

// Select opens a folder.
func (s *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unselect()
	m, err := s.account.Open(name)
	if err != nil {
		return nil, s.answer("opening a folder", err)
	}
	s.folder, s.name, s.view, s.readOnly = m, name, m.View(), options.ReadOnly
	status := m.Status()
	flags, permanent := s.flags()
	data := &imap.SelectData{
		Flags: flags, PermanentFlags: permanent, NumMessages: s.view.Len(), FirstUnseenSeqNum: min(status.FirstUnseen, s.view.Len()),
		UIDNext: imap.UID(status.Next), UIDValidity: status.Validity,
	}
	if s.conn.EnabledCaps().Has(imap.CapIMAP4rev2) {
		data.List = &imap.ListData{Mailbox: name, Delim: box.Delimiter} // RFC 9051, 6.3.2
	}
	return data, nil
}

// flags returns the flags that the folder knows, and those that can be changed.
func (s *session) flags() (flags, permanent []imap.Flag) {
	flags = []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft}
	names, room := s.folder.Keywords()
	for _, name := range names {
		flags = append(flags, imap.Flag(name))
	}
	if s.readOnly {
		return flags, nil
	}
	permanent = flags[:len(flags):len(flags)]
	if room {
		permanent = append(permanent, imap.FlagWildcard)
	}
	return flags, permanent
}

// Unselect closes the folder.
func (s *session) Unselect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unselect()
	return nil
}

func (s *session) unselect() {
	if s.folder != nil {
		s.folder.Close()
	}
	s.folder, s.view, s.saved = nil, nil, nil
}

// Poll tells what has changed.
func (s *session) Poll(w *imapserver.UpdateWriter, gone bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.poll(w, gone)
}

func (s *session) poll(w *imapserver.UpdateWriter, gone bool) (err error) {
	if s.folder == nil {
		return nil
	}
	// The library closes a connection whose poll fails, though the command itself has gone well: what can't be looked at
	// now has not changed. The folder logs it.
	if err := s.folder.Sync(false); err != nil {
		return nil //nolint:nilerr // see above
	}
	changes := s.view.Update(gone)
	if len(changes) == 0 {
		return nil
	}
	flush := s.under.Hold()
	defer func() { err = errors.Join(err, flush()) }()
	for _, c := range changes {
		switch {
		case c.Expunged != 0:
			err = w.WriteExpunge(c.Expunged)
		case c.Exists != 0:
			err = w.WriteNumMessages(c.Exists)
		default:
			err = w.WriteMessageFlags(c.Seq, imap.UID(c.UID), words(c.Flags))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookEvery is how often an idle session looks for what other programs have changed.
const lookEvery = 500 * time.Millisecond

// Idle tells what changes until stop is closed.
func (s *session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	tick := time.NewTicker(s.server.look)
	defer tick.Stop()
	for {
		changed, err := s.look(w)
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-stop:
			return nil
		case <-s.server.ctx.Done():
			return nil
		}
	}
}

func (s *session) look(w *imapserver.UpdateWriter) (changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == nil {
		return nil, nil
	}
	changed = s.folder.Changed()
	return changed, s.poll(w, true)
}

// words returns flags as IMAP has them.
func words(m box.Marks) []imap.Flag {
	flags := []imap.Flag{}
	for _, x := range systemFlags() {
		if m.Flags&x.bit != 0 {
			flags = append(flags, x.flag)
		}
	}
	for _, k := range m.Keywords {
		flags = append(flags, imap.Flag(k))
	}
	return flags
}

type systemFlag struct {
	bit  box.Flags
	flag imap.Flag
}

func systemFlags() [5]systemFlag {
	return [...]systemFlag{
		{box.Seen, imap.FlagSeen}, {box.Answered, imap.FlagAnswered}, {box.Flagged, imap.FlagFlagged},
		{box.Deleted, imap.FlagDeleted}, {box.Draft, imap.FlagDraft},
	}
}

// bits returns flags as the folder has them. Those that it can't keep, such as \Recent, are an error.
func bits(m *box.Mailbox, flags []imap.Flag, create bool) (f box.Flags, err error) {
	var keywords []string
	for _, flag := range flags {
		bit := box.Flags(0)
		for _, x := range systemFlags() {
			if strings.EqualFold(string(flag), string(x.flag)) {
				bit = x.bit
			}
		}
		switch {
		case bit != 0:
			f |= bit
		case strings.HasPrefix(string(flag), `\`):
			return 0, no(imap.ResponseCodeCannot, "There is no such system flag")
		default:
			keywords = append(keywords, string(flag))
		}
	}
	letters, err := m.Letters(keywords, create)
	return f | letters, err
}

// AppendLimit is the largest message that is taken (RFC 7889).
func (s *session) AppendLimit() uint32 { return appendLimit }

// Append puts a message into a folder.
func (s *session) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	if r.Size() == 0 {
		return nil, no(imap.ResponseCodeCannot, "An empty message is none")
	}
	m, err := s.dest(name)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	flags, err := bits(m, options.Flags, true)
	if err != nil {
		return nil, s.answer("keeping flags", err)
	}
	placed, err := m.Append(&whole{r, r.Size()}, flags, options.Time)
	if err != nil {
		return nil, s.answer("keeping a message", err)
	}
	return &imap.AppendData{UID: imap.UID(placed.UIDs[0]), UIDValidity: placed.Validity}, nil
}

// whole is a literal that is an error unless all of it comes: half a message is not kept.
type whole struct {
	r    io.Reader
	left int64
}

// Read reads on.
func (w *whole) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// dest opens the folder that something goes to.
func (s *session) dest(name string) (*box.Mailbox, error) {
	m, err := s.account.Open(name)
	if errors.Is(err, box.ErrNoFolder) {
		return nil, no(imap.ResponseCodeTryCreate, "There is no such folder")
	}
	return m, s.answer("opening a folder", err)
}

// Copy puts messages into another folder.
func (s *session) Copy(set imap.NumSet, name string) (*imap.CopyData, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, _, err := s.copy(set, name, false)
	return data, err
}

func (s *session) copy(set imap.NumSet, name string, moving bool) (*imap.CopyData, []*box.Message, error) {
	m, err := s.dest(name)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	placed, from, err := s.folder.Copy(s.messages(set), m, moving)
	if err != nil {
		return nil, nil, s.answer("copying", err)
	}
	if len(from) == 0 {
		return nil, nil, nil
	}
	data := &imap.CopyData{UIDValidity: placed.Validity}
	for i, msg := range from {
		data.SourceUIDs.AddNum(imap.UID(msg.UID))
		data.DestUIDs.AddNum(imap.UID(placed.UIDs[i]))
	}
	return data, from, nil
}

// Move puts messages into another folder and removes them here. A crash in between leaves them in both.
func (s *session) Move(w *imapserver.MoveWriter, set imap.NumSet, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly {
		return no(imap.ResponseCodeNoPerm, "The folder is open for reading only")
	}
	data, from, err := s.copy(set, name, true)
	if err != nil || data == nil {
		return err
	}
	if err := w.WriteCopyData(data); err != nil {
		return err
	}
	// What the client sees go is told by the poll at the command's end.
	return s.answer("removing what was moved", s.folder.Remove(from))
}

// Expunge removes the messages that are marked as deleted; with uids, those of them only.
func (s *session) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly {
		if *w == (imapserver.ExpungeWriter{}) {
			return nil // CLOSE: nothing is removed, and nothing is wrong (RFC 9051, 6.4.1)
		}
		return no(imap.ResponseCodeNoPerm, "The folder is open for reading only")
	}
	var set imap.NumSet = imap.SeqSet{{Start: 1, Stop: 0}}
	if uids != nil {
		set = *uids
	}
	var gone []*box.Message
	for _, msg := range s.messages(set) {
		if s.folder.Marks(msg).Flags&box.Deleted != 0 {
			gone = append(gone, msg)
		}
	}
	return s.answer("removing messages", s.folder.Remove(gone))
}

// Store changes flags.
func (s *session) Store(w *imapserver.FetchWriter, set imap.NumSet, change *imap.StoreFlags, _ *imap.StoreOptions) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly {
		return no(imap.ResponseCodeNoPerm, "The folder is open for reading only")
	}
	flags, err := bits(s.folder, change.Flags, change.Op != imap.StoreFlagsDel)
	if err != nil {
		return s.answer("keeping flags", err)
	}
	op := map[imap.StoreFlagsOp]box.Op{imap.StoreFlagsSet: box.Set, imap.StoreFlagsAdd: box.Add, imap.StoreFlagsDel: box.Clear}[change.Op]
	flush := s.under.Hold()
	defer func() { err = errors.Join(err, flush()) }()
	var missed error
	for _, seq := range s.numbers(set) {
		msg := s.view.At(seq)
		if err := s.folder.Mark(msg, op, flags); err != nil {
			missed = err
			continue
		}
		s.view.Told(seq)
		if change.Silent {
			continue
		}
		rw := w.CreateMessage(seq)
		rw.WriteUID(imap.UID(msg.UID))
		rw.WriteFlags(words(s.folder.Marks(msg)))
		if err := rw.Close(); err != nil {
			return err
		}
	}
	return s.answer("keeping flags", missed)
}

// Namespace says that there is but the account's own (RFC 2342).
func (s *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: box.Delimiter}}}, nil
}

// The session can all that the capabilities say.
var (
	_ imapserver.SessionIMAP4rev2   = (*session)(nil)
	_ imapserver.SessionAppendLimit = (*session)(nil)
	_ imapserver.SessionSASL        = (*session)(nil)
)
