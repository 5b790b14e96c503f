package useragent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsimple"
)

// Account is who we are and which servers we speak to. Its file is written in HCL:
//
//	address          = "ann@example.com"
//	name             = "Ann"
//	imap             = "imap.example.com:993"
//	submit           = "smtp.example.com:465"
//	password_command = "pass show mail/ann"
type Account struct {
	Address         string   `hcl:"address,optional"` // what stands in From; the user when it is not given
	Name            string   `hcl:"name,optional"`
	Aliases         []string `hcl:"aliases,optional"` // other addresses that are ours: an answer to all leaves them out
	User            string   `hcl:"user,optional"`    // for the login; the address when it is not given
	IMAP            string   `hcl:"imap,optional"`    // host:port
	Submit          string   `hcl:"submit,optional"`  // host:port
	TLS             string   `hcl:"tls,optional"`     // auto, implicit, starttls or none
	PasswordCommand string   `hcl:"password_command,optional"`

	Insecure  bool                   // take any certificate
	IMAPTLS   string                 // where it is not TLS
	SubmitTLS string                 // the same
	Ask       func() (string, error) // asks a person; nil when there is none to ask
	password  string
}

// ErrNoServer is an account that names no server for what is to be done.
var ErrNoServer = errors.New("no mail server is named")

// AccountFile returns where the account is looked for when no file is named.
func AccountFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "mta", "mail.hcl")
}

// LoadAccount reads the account's file. A file that is not there is an empty account, unless must is set.
func LoadAccount(path string, must bool) (*Account, error) {
	a := new(Account)
	if path == "" {
		return a, nil
	}
	source, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	if err := hclsimple.Decode(filepath.Base(path)+".hcl", source, nil, a); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// Or takes from b what a does not say.
func (a *Account) Or(b Account) {
	for _, pair := range [][2]*string{
		{&a.Address, &b.Address}, {&a.Name, &b.Name}, {&a.User, &b.User}, {&a.IMAP, &b.IMAP}, {&a.Submit, &b.Submit},
		{&a.TLS, &b.TLS}, {&a.IMAPTLS, &b.IMAPTLS}, {&a.SubmitTLS, &b.SubmitTLS}, {&a.PasswordCommand, &b.PasswordCommand},
	} {
		*pair[0] = cmp.Or(*pair[0], *pair[1])
	}
}

// Check proves the words of an account and fills in what follows from them.
func (a *Account) Check() error {
	a.TLS = cmp.Or(a.TLS, "auto")
	switch a.TLS {
	case "auto", "implicit", "starttls", "none":
	default:
		return fmt.Errorf("tls %q: it is auto, implicit, starttls or none", a.TLS)
	}
	a.User = cmp.Or(a.User, a.Address)
	a.Address = cmp.Or(a.Address, a.User)
	for _, server := range []string{a.IMAP, a.Submit} {
		if _, _, err := net.SplitHostPort(server); server != "" && err != nil {
			return fmt.Errorf("%q is no HOST:PORT", server)
		}
	}
	return nil
}

// Own returns the addresses that are ours.
func (a *Account) Own() Own { return append(Own{a.Address, a.User}, a.Aliases...) }

// Password finds the password: in MTA_PASSWORD, by the command of the account, or by asking. It is never an argument.
func (a *Account) Password(ctx context.Context) (string, error) {
	if a.password != "" {
		return a.password, nil
	}
	var err error
	switch env := os.Getenv("MTA_PASSWORD"); {
	case env != "":
		a.password = env
	case a.PasswordCommand != "":
		a.password, err = runPasswordCommand(ctx, a.PasswordCommand)
	case a.Ask != nil:
		a.password, err = a.Ask()
	default:
		err = errors.New("no password: set MTA_PASSWORD, or password_command in the account file")
	}
	if err == nil && strings.ContainsAny(a.password, "\r\n\x00") {
		err = errors.New("the password has more than one line")
	}
	return a.password, err
}

func runPasswordCommand(ctx context.Context, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("password_command: %w", err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if len(line) == 0 {
		return "", errors.New("password_command: it printed nothing")
	}
	return strings.TrimRight(string(line), "\r"), nil
}

// way is how a connection becomes safe.
type way int

const (
	inClear  way = iota // as it is
	inTLS               // TLS from the first byte
	startTLS            // STARTTLS, or not at all
	asNeeded            // on this machine: STARTTLS only where the server wants it
)

// chooseWay turns the word of the account into what is done. With "auto" the port decides; a password never leaves this
// machine in clear unless "none" is written.
func chooseWay(word, server string) way {
	host, port, _ := net.SplitHostPort(server)
	switch {
	case word == "implicit", word == "auto" && (port == "993" || port == "465"):
		return inTLS
	case word == "none":
		return inClear
	case word == "auto" && isLoopback(host):
		return asNeeded
	default:
		return startTLS
	}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

const dialTimeout = 30 * time.Second

// dial connects, and begins TLS where that comes first. A context that ends closes the connection.
func (a *Account) dial(ctx context.Context, server string, w way) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	if w == inTLS {
		c := tls.Client(conn, a.tlsConfig(server))
		shaking, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := c.HandshakeContext(shaking); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", server, err)
		}
		conn = c
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return conn, nil
}

func (a *Account) tlsConfig(server string) *tls.Config {
	host, _, _ := net.SplitHostPort(server)
	return &tls.Config{ServerName: host, InsecureSkipVerify: a.Insecure}
}
