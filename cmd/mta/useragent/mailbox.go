package useragent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// maxMessage bounds what is fetched into memory.
const maxMessage = 512 << 20

// Mailbox is a login at an IMAP server.
type Mailbox struct {
	client *imapclient.Client
	news   chan struct{} // something has changed in the open folder
	next   imap.UID      // at least the number of the next message in the open folder
	server string
}

// Mailbox connects to the account's IMAP server and logs in.
func (a *Account) Mailbox(ctx context.Context) (*Mailbox, error) {
	if a.IMAP == "" {
		return nil, fmt.Errorf("%w to read from", ErrNoServer)
	}
	if a.User == "" {
		return nil, fmt.Errorf("%w to log in as: give -user", ErrNoServer)
	}
	password, err := a.Password(ctx)
	if err != nil {
		return nil, err
	}
	b, err := a.connectMailbox(ctx, chooseWay(cmp.Or(a.IMAPTLS, a.TLS), a.IMAP))
	if err != nil {
		return nil, err
	}
	if err := b.client.Login(a.User, password).Wait(); err != nil {
		_ = b.client.Close() // what failed before is the better word
		return nil, fmt.Errorf("login as %s at %s: %w", a.User, a.IMAP, err)
	}
	return b, nil
}

func (a *Account) connectMailbox(ctx context.Context, w way) (*Mailbox, error) {
	conn, err := a.dial(ctx, a.IMAP, w)
	if err != nil {
		return nil, err
	}
	b := &Mailbox{news: make(chan struct{}, 1), server: a.IMAP}
	options := &imapclient.Options{
		WordDecoder: &mime.WordDecoder{CharsetReader: charsetReader},
		TLSConfig:   a.tlsConfig(a.IMAP),
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(*imapclient.UnilateralDataMailbox) { b.wake() },
		},
	}
	if w == startTLS {
		if b.client, err = imapclient.NewStartTLS(conn, options); err != nil {
			return nil, fmt.Errorf("STARTTLS with %s: %w", a.IMAP, err)
		}
		return b, nil
	}
	b.client = imapclient.New(conn, options)
	if err := b.client.WaitGreeting(); err != nil {
		_ = b.client.Close() // what failed before is the better word
		return nil, fmt.Errorf("%s does not greet (does it want TLS from the first byte? -tls implicit): %w", a.IMAP, err)
	}
	if caps := b.client.Caps(); w == asNeeded && caps.Has(imap.CapLoginDisabled) && caps.Has(imap.CapStartTLS) {
		_ = b.client.Close() // what failed before is the better word
		return a.connectMailbox(ctx, startTLS)
	}
	return b, nil
}

func (b *Mailbox) wake() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// Close takes leave.
func (b *Mailbox) Close() error {
	if err := b.client.Logout().Wait(); err != nil {
		return errors.Join(err, b.client.Close())
	}
	return b.client.Close()
}

// Open selects a folder. What is opened only to look changes nothing in it.
func (b *Mailbox) Open(folder string, onlyLook bool) error {
	data, err := b.client.Select(folder, &imap.SelectOptions{ReadOnly: onlyLook}).Wait()
	if err != nil {
		return fmt.Errorf("folder %s: %w", SafeLine(folder), err)
	}
	b.next = data.UIDNext
	return nil
}

// Last returns the highest number that a message of the open folder can have had when it was opened.
func (b *Mailbox) Last() imap.UID { return max(b.next, 1) - 1 }

// Folder is a folder and what is in it.
type Folder struct {
	Name     string `json:"name"`
	Use      string `json:"use,omitempty"` // Sent, Drafts, Trash, ...
	Messages uint32 `json:"messages"`
	Unread   uint32 `json:"unread"`
	Holds    bool   `json:"-"` // whether it can hold messages
}

// Folders returns all folders.
func (b *Mailbox) Folders(counts bool) ([]Folder, error) {
	options := &imap.ListOptions{}
	// Special uses are asked for where that is known (RFC 6154, 5.1); servers without LIST-EXTENDED tell them unasked.
	if caps := b.client.Caps(); caps.Has(imap.CapSpecialUse) && caps.Has(imap.CapListExtended) {
		options.ReturnSpecialUse = true
	}
	list, err := b.client.List("", "*", options).Collect()
	if err != nil {
		return nil, err
	}
	var folders []Folder
	for _, data := range list {
		f := Folder{Name: data.Mailbox, Holds: true}
		for _, attr := range data.Attrs {
			f.noteAttr(attr)
		}
		if counts && f.Holds {
			status, err := b.client.Status(f.Name, &imap.StatusOptions{NumMessages: true, NumUnseen: true}).Wait()
			if err != nil {
				return nil, err
			}
			if status.NumMessages != nil && status.NumUnseen != nil {
				f.Messages, f.Unread = *status.NumMessages, *status.NumUnseen
			}
		}
		folders = append(folders, f)
	}
	slices.SortFunc(folders, func(a, b Folder) int {
		if inbox := strings.EqualFold(a.Name, "INBOX"); inbox != strings.EqualFold(b.Name, "INBOX") {
			return map[bool]int{true: -1, false: 1}[inbox]
		}
		return strings.Compare(a.Name, b.Name)
	})
	return folders, nil
}

func (f *Folder) noteAttr(attr imap.MailboxAttr) {
	for _, use := range []imap.MailboxAttr{
		imap.MailboxAttrSent, imap.MailboxAttrDrafts, imap.MailboxAttrTrash, imap.MailboxAttrJunk, imap.MailboxAttrArchive,
	} {
		if strings.EqualFold(string(attr), string(use)) {
			f.Use = string(use[1:])
		}
	}
	if strings.EqualFold(string(attr), `\Noselect`) || strings.EqualFold(string(attr), `\NonExistent`) {
		f.Holds = false
	}
}

// FolderFor returns the folder for a special use, such as "Sent" (RFC 6154): the one that the server names, else one of
// that very name, which need not exist yet.
func (b *Mailbox) FolderFor(use string) (string, error) {
	folders, err := b.Folders(false)
	if err != nil {
		return "", err
	}
	name := use
	for _, f := range folders {
		if f.Use == use && f.Holds {
			return f.Name, nil
		}
		if strings.EqualFold(f.Name, use) || strings.EqualFold(f.Name, "INBOX."+use) || strings.EqualFold(f.Name, "INBOX/"+use) {
			name = f.Name
		}
	}
	return name, nil
}

// Existing returns those of the numbers that a message of the open folder has.
func (b *Mailbox) Existing(uids []imap.UID) ([]imap.UID, error) {
	data, err := b.client.UIDSearch(&imap.SearchCriteria{UID: []imap.UIDSet{imap.UIDSetNum(uids...)}}, nil).Wait()
	if err != nil {
		return nil, err
	}
	return data.AllUIDs(), nil
}

// Entry is a message in a list.
type Entry struct {
	N           imap.UID  `json:"n"`
	From        string    `json:"from"`
	Address     string    `json:"address"`
	To          []string  `json:"to"`
	Subject     string    `json:"subject"`
	Date        time.Time `json:"date"`
	Size        int64     `json:"size"`
	Flags       []string  `json:"flags"`
	Attachments int       `json:"attachments"`
	MessageID   string    `json:"message_id"`
}

// Has reports whether the message has a flag.
func (e *Entry) Has(flag imap.Flag) bool {
	return slices.ContainsFunc(e.Flags, func(f string) bool { return strings.EqualFold(f, string(flag)) })
}

// Query says which messages are wanted.
type Query struct {
	Unread bool
	Text   string // somewhere in the message
	After  imap.UID
}

// Find returns the numbers of the messages in the open folder that are as wanted, in their order.
func (b *Mailbox) Find(q Query) ([]imap.UID, error) {
	criteria := &imap.SearchCriteria{}
	if q.Unread {
		criteria.NotFlag = []imap.Flag{imap.FlagSeen}
	}
	if q.Text != "" {
		criteria.Text = []string{q.Text}
	}
	if q.After > 0 {
		criteria.UID = []imap.UIDSet{{imap.UIDRange{Start: q.After + 1, Stop: 0}}}
	}
	data, err := b.client.UIDSearch(criteria, nil).Wait()
	if err != nil {
		return nil, err
	}
	return later(data.AllUIDs(), q.After), nil
}

// later sorts the numbers, and leaves out what is not after n: "n:*" holds the last message even when its number is
// below n (RFC 9051, 9).
func later(uids []imap.UID, n imap.UID) []imap.UID {
	uids = slices.DeleteFunc(uids, func(u imap.UID) bool { return u <= n })
	slices.Sort(uids)
	return uids
}

// Entries calls fn for each of these messages, as they come.
func (b *Mailbox) Entries(uids []imap.UID, fn func(Entry) error) error {
	if len(uids) == 0 {
		return nil
	}
	cmd := b.client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{
		UID: true, Envelope: true, Flags: true, RFC822Size: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
	})
	var failed error
	for data := cmd.Next(); data != nil; data = cmd.Next() {
		message, err := data.Collect()
		if err == nil && failed == nil && message.UID != 0 {
			failed = fn(entryOf(message))
		}
	}
	return errors.Join(failed, cmd.Close())
}

func entryOf(m *imapclient.FetchMessageBuffer) Entry {
	e := Entry{N: m.UID, Size: m.RFC822Size, Date: m.InternalDate, Flags: []string{}, To: []string{}}
	for _, f := range m.Flags {
		e.Flags = append(e.Flags, string(f))
	}
	if env := m.Envelope; env != nil {
		e.Subject, e.MessageID = env.Subject, env.MessageID
		if !env.Date.IsZero() {
			e.Date = env.Date
		}
		if len(env.From) > 0 {
			e.From, e.Address = env.From[0].Name, env.From[0].Addr()
		}
		for _, to := range slices.Concat(env.To, env.Cc) {
			if to.Addr() != "" {
				e.To = append(e.To, to.Addr())
			}
		}
	}
	if m.BodyStructure != nil {
		m.BodyStructure.Walk(func(_ []int, part imap.BodyStructure) bool {
			if d := part.Disposition(); d != nil && strings.EqualFold(d.Value, "attachment") {
				e.Attachments++
			}
			return true
		})
	}
	return e
}

// ErrNoMessage is a number that no message of the folder has.
var ErrNoMessage = errors.New("there is no such message")

// Fetch returns a message whole, and its flags. It does not mark it as read.
func (b *Mailbox) Fetch(n imap.UID, p Progress) (*Message, []imap.Flag, error) {
	section := &imap.FetchItemBodySection{Peek: true}
	cmd := b.client.Fetch(imap.UIDSetNum(n), &imap.FetchOptions{UID: true, Flags: true, BodySection: []*imap.FetchItemBodySection{section}})
	var raw []byte
	var flags []imap.Flag
	var failed error
	found := false
	for data := cmd.Next(); data != nil; data = cmd.Next() {
		for item := data.Next(); item != nil; item = data.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataFlags:
				flags = item.Flags
			case imapclient.FetchItemDataBodySection:
				if item.Literal != nil {
					found = true
					raw, failed = readLiteral(item.Literal, p)
				}
			}
		}
	}
	if err := cmd.Close(); err != nil {
		return nil, nil, err
	}
	if failed != nil {
		return nil, nil, failed
	}
	if !found {
		return nil, nil, fmt.Errorf("%w: %d", ErrNoMessage, n)
	}
	return Read(raw), flags, nil
}

func readLiteral(r imap.LiteralReader, p Progress) ([]byte, error) {
	if r.Size() > maxMessage {
		return nil, fmt.Errorf("the message has %d bytes; more than %d are not fetched", r.Size(), int64(maxMessage))
	}
	var b bytes.Buffer
	for {
		_, err := io.CopyN(&b, r, 64<<10)
		if p != nil {
			p(int64(b.Len()), r.Size())
		}
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Mark sets and takes flags of messages.
func (b *Mailbox) Mark(uids []imap.UID, set, take []imap.Flag) error {
	for op, flags := range map[imap.StoreFlagsOp][]imap.Flag{imap.StoreFlagsAdd: set, imap.StoreFlagsDel: take} {
		if len(flags) == 0 {
			continue
		}
		err := b.client.Store(imap.UIDSetNum(uids...), &imap.StoreFlags{Op: op, Silent: true, Flags: flags}, nil).Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Append puts a message into a folder, which is made when it is not there.
func (b *Mailbox) Append(folder string, message []byte, flags []imap.Flag, p Progress) error {
	err := b.append(folder, message, flags, p)
	var no *imap.Error
	if errors.As(err, &no) && no.Type == imap.StatusResponseTypeNo && no.Code == imap.ResponseCodeTryCreate {
		if err := b.client.Create(folder, nil).Wait(); err != nil {
			return err
		}
		err = b.append(folder, message, flags, p)
	}
	return err
}

func (b *Mailbox) append(folder string, message []byte, flags []imap.Flag, p Progress) error {
	cmd := b.client.Append(folder, int64(len(message)), &imap.AppendOptions{Flags: flags, Time: time.Now()})
	if err := copyWithProgress(cmd, message, p); err != nil {
		_, waitErr := cmd.Wait() // a server that refuses says why
		return errors.Join(waitErr, err)
	}
	if err := cmd.Close(); err != nil {
		_, waitErr := cmd.Wait()
		return errors.Join(waitErr, err)
	}
	_, err := cmd.Wait()
	return err
}

// Move moves messages. Without MOVE (RFC 6851) nothing is removed before the server has said that the copies are there.
func (b *Mailbox) Move(uids []imap.UID, folder string) error {
	set := imap.UIDSetNum(uids...)
	if b.client.Caps().Has(imap.CapMove) {
		_, err := b.client.Move(set, folder).Wait()
		return err
	}
	if _, err := b.client.Copy(set, folder).Wait(); err != nil {
		return err
	}
	return b.Remove(uids)
}

// Create makes a folder.
func (b *Mailbox) Create(folder string) error { return b.client.Create(folder, nil).Wait() }

// Remove removes messages for good. A server without UIDPLUS would remove more than was asked for: there they are only
// marked.
func (b *Mailbox) Remove(uids []imap.UID) error {
	if err := b.Mark(uids, []imap.Flag{imap.FlagDeleted}, nil); err != nil {
		return err
	}
	if !b.client.Caps().Has(imap.CapUIDPlus) {
		return nil
	}
	return b.client.UIDExpunge(imap.UIDSetNum(uids...)).Close()
}

// pollEvery is how often a server without IDLE is asked.
const pollEvery = 30 * time.Second

// Watch waits until the server tells of something new in the open folder, or the context ends.
func (b *Mailbox) Watch(ctx context.Context) error {
	if !b.client.Caps().Has(imap.CapIdle) {
		return b.poll(ctx)
	}
	idle, err := b.client.Idle()
	if err != nil {
		return err
	}
	select {
	case <-b.news:
	case <-ctx.Done():
	case <-b.client.Closed():
		return fmt.Errorf("%s has closed the connection", b.server)
	}
	if err := idle.Close(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return errors.Join(ctx.Err(), idle.Wait())
}

func (b *Mailbox) poll(ctx context.Context) error {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.client.Noop().Wait()
}

// Draft reads a draft back as a letter: who wrote it, and who shall get it.
func (m *Message) Draft() *Letter {
	l := &Letter{To: m.Header.Addresses("To"), Cc: m.Header.Addresses("Cc"), Bcc: m.Header.Addresses("Bcc")}
	if list := m.Header.Addresses("From"); len(list) > 0 {
		l.From = list[0]
	}
	return l
}
