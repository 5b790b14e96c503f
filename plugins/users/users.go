// Package users is the plugin that says who may log in: accounts in one text file, passwords as argon2id.
//
// It is the builtin "users", an Authenticator, and the Go API behind `mta user`. A line of the file is one account,
//
//	ann@example.com:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH:info@example.com,sales@example.com:any-sender
//
// the last two fields optional; empty lines and lines that begin with # are kept as they are. The file is read again when
// it has changed. It is replaced whole (written beside, synced, renamed) under a lock, so that a crash leaves the old or
// the new one and two writers lose nothing. A file that is missing or broken is trouble of ours, never a refused login: the
// last good accounts stay in force while there are any.
package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Limits on what a client sends. Both are far above what people use, and low enough that refusing costs nothing.
const (
	maxName     = 320  // 64 + @ + 255 octets (RFC 5321, 4.5.3.1)
	maxPassword = 1024 // in bytes
)

// maxParallel bounds Config.Parallel.
const maxParallel = 64

// Config is the plugin's block in mta.hcl.
type Config struct {
	File     string        `mta:"file" type:"path" doc:"the file of accounts; mta user add|password|list|remove change it"`
	Cache    time.Duration `mta:"cache,optional" default:"60s" doc:"how long a login that was right is remembered, so that a busy client does not pay for a password hash at each connection; 0s: never"`
	Parallel int           `mta:"parallel,optional" default:"2" doc:"how many passwords are hashed at once; each takes 19 MiB and one processor while it runs, the others wait"`
}

// Users answers logins from a file.
type Users struct {
	file  *File
	log   *slog.Logger
	slots chan struct{} // one for each hash that may run
	key   [32]byte      // of this process: the cache and the choice of a stand-in hash depend on it
	known cache

	mu     sync.Mutex
	warned string // the last trouble that was logged, so that a login storm does not fill the log
}

// New makes the authenticator. A file that cannot be used yet is no error, so that a server starts before its first account
// is made; a file that is wrong is one.
func New(cfg Config, log *slog.Logger) (*Users, error) {
	if cfg.File == "" {
		return nil, errors.New("file: the path of the file of accounts is wanted")
	}
	if problems := cfg.Check(); len(problems) > 0 {
		return nil, problems[0]
	}
	f, err := Open(cfg.File)
	if err != nil {
		return nil, err
	}
	u := &Users{file: f, log: log, slots: make(chan struct{}, cfg.Parallel), known: cache{ttl: cfg.Cache}}
	if _, err := rand.Read(u.key[:]); err != nil {
		return nil, fmt.Errorf("making a key for the cache of logins: %w", err)
	}
	return u, nil
}

// Authenticate says who logged in. An unknown account costs the same time as a wrong password and gets the same answer.
func (u *Users) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	name, password, ok := normalize(login.User, login.Password)
	if !ok {
		return mail.Identity{}, mail.ErrBadLogin
	}
	accounts, err := u.accounts()
	if err != nil {
		return mail.Identity{}, err
	}
	a, found := accounts.find(name)
	hash := a.hash
	if !found || a.Disabled {
		hash, found = u.standIn(accounts, name), false
	}
	right, err := u.matches(ctx, name, hash, password)
	if err != nil {
		return mail.Identity{}, err
	}
	if !right || !found {
		return mail.Identity{}, mail.ErrBadLogin
	}
	return a.identity(), nil
}

// accounts returns the accounts as they are now, or the last good ones when the file has become unusable.
func (u *Users) accounts() (*table, error) {
	t, err := u.file.load()
	if err == nil {
		u.warn("")
		return t, nil
	}
	u.warn(err.Error())
	if t != nil {
		return t, nil
	}
	return nil, err
}

// warn logs a trouble once, until it is over or another.
func (u *Users) warn(trouble string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if trouble == u.warned {
		return
	}
	u.warned = trouble
	if trouble != "" && u.log != nil {
		u.log.Warn("the file of accounts can't be used", "error", trouble)
	}
}

// matches compares, from the cache of right logins if it can.
func (u *Users) matches(ctx context.Context, name string, hash hash, password string) (bool, error) {
	key := u.mac(name, hash.text, password)
	if u.known.has(key, time.Now()) {
		return true, nil
	}
	select {
	case u.slots <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for a turn to hash a password: %w", context.Cause(ctx))
	}
	right := hash.matches(password)
	<-u.slots
	if right {
		u.known.add(key, time.Now())
	}
	return right, nil
}

// standIn returns a hash that no password fits, as dear as that of some account of the file: always the same one for one
// name, so that the time it takes tells nothing.
func (u *Users) standIn(accounts *table, name string) hash {
	h := hash{cost: defaultCost, salt: make([]byte, saltLen)}
	if n := uint64(len(accounts.list)); n > 0 {
		mac := u.mac(name, "", "")
		h.cost = accounts.list[binary.BigEndian.Uint64(mac[:])%n].hash.cost
	}
	return h
}

func (u *Users) mac(parts ...string) (sum [32]byte) {
	m := hmac.New(sha256.New, u.key[:])
	for _, p := range parts {
		_ = binary.Write(m, binary.BigEndian, uint64(len(p)))
		m.Write([]byte(p))
	}
	m.Sum(sum[:0])
	return sum
}

// normalize brings what a client sent into the form that the file holds, or reports false for what can't be in it. Names
// fold case; both are composed (RFC 8265, 3.3 and 4.2), since one keyboard sends Hangul or é in pieces and another whole.
func normalize(name, password string) (n, p string, ok bool) {
	if name == "" || len(name) > maxName || checkPassword(password) != nil {
		return "", "", false
	}
	a, err := mail.ParseUnquoted(name)
	if err != nil {
		return "", "", false
	}
	return Canonical(a), norm.NFC.String(password), true
}

// Canonical returns the name that an address has in the file: composed, in lower case.
func Canonical(a mail.Address) string {
	return strings.ToLower(norm.NFC.String(a.Local())) + "@" + a.Domain()
}

func checkPassword(p string) error {
	switch {
	case p == "":
		return errors.New("the password is empty")
	case len(p) > maxPassword:
		return fmt.Errorf("the password has %d bytes, more than %d", len(p), maxPassword)
	case !utf8.ValidString(p) || strings.ContainsRune(p, 0):
		return errors.New("the password is not text: it is not UTF-8 or holds a NUL")
	}
	return nil
}
