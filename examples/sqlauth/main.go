// Sqlauth is a plugin that finds accounts in a database: PostgreSQL, or a file of SQLite. It is a module of its own, because
// the server wants none of its drivers.
//
// The query gets the account as its only parameter and returns a row with the bcrypt hash of the password; a second column
// may hold an address that the account may send from, with a row for each. A database that does not answer means that
// nobody knows: the client is answered 454 and tries again, instead of asking for another password. The server starts
// without its database, too; only a query that the database refuses keeps the plugin from starting.
//
// In mta.hcl:
//
//	plugin "accounts" {
//	  source = "/usr/lib/mta/plugins/sqlauth"
//	  config {
//	    driver = "postgres"
//	    dsn    = "host=/run/postgresql dbname=mail"
//	    query  = "SELECT hash, address FROM accounts LEFT JOIN addresses USING (login) WHERE login = $1"
//	  }
//	}
//
//	listener "submission" {
//	  address       = ["127.0.0.1:2587"]
//	  auth          = plugin.accounts
//	  insecure_auth = true # loopback; elsewhere: tls = tls.NAME
//	}
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/lib/pq"
	"golang.org/x/crypto/bcrypt"
	_ "modernc.org/sqlite"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl.
type Config struct {
	Driver string        `mta:"driver" oneof:"postgres sqlite" doc:"what the database is"`
	DSN    schema.Secret `mta:"dsn" doc:"where it is: host=… dbname=… user=… password=…, or a file"`
	Query  string        `mta:"query,optional" default:"SELECT hash FROM accounts WHERE login = $1" doc:"returns the bcrypt hash for a login, and maybe an address that it may send from"`
}

// Bounds of the connections, and of what a query may return.
const (
	maxConns     = 8
	maxAddresses = 1000
)

// SQLAuth is the authenticator.
type SQLAuth struct {
	db    *sql.DB
	query string
	none  []byte // the hash for accounts that are not there, so that they take as long as others
}

func newSQLAuth(ctx context.Context, c Config, host sdk.Host) (any, error) {
	none, err := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open(c.Driver, string(c.DSN))
	if err != nil {
		return nil, sdk.Problems{{Path: []string{"dsn"}, Summary: "can't be read"}} // the error may hold the password
	}
	db.SetMaxOpenConns(maxConns)
	switch query, err := db.PrepareContext(ctx, c.Query); {
	case err == nil:
		err = query.Close()
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
	case away(err):
		host.Logger().Warn("the database does not answer; nobody can log in until it does", "error", err)
	default:
		return nil, fmt.Errorf("the database does not take the query: %w", errors.Join(err, db.Close()))
	}
	return &SQLAuth{db, c.Query, none}, nil
}

// away reports whether an error means that the database is not there now, and not that it refuses something.
func away(err error) bool {
	var refused *pq.Error
	if errors.As(err, &refused) {
		// Its connections end, there are too many of them, or it starts or stops (PostgreSQL, appendix A).
		return slices.Contains([]string{"08", "53", "57"}, string(refused.Code.Class()))
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

// Close closes the connections.
func (a *SQLAuth) Close() error { return a.db.Close() }

// Authenticate looks an account up and compares the password. An account that is not there takes as long as a wrong
// password does.
func (a *SQLAuth) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	hash, addresses, err := a.find(ctx, login.User)
	if err != nil {
		return mail.Identity{}, err
	}
	known := hash != nil
	if !known {
		hash = a.none
	}
	err = bcrypt.CompareHashAndPassword(hash, []byte(login.Password))
	switch {
	case !known, errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return mail.Identity{}, mail.ErrBadLogin
	case err != nil:
		return mail.Identity{}, fmt.Errorf("the hash of %q: %w", login.User, err)
	}
	return mail.Identity{User: login.User, Addresses: addresses}, nil
}

// find returns the hash of an account, nil for one that is not there, and its addresses.
func (a *SQLAuth) find(ctx context.Context, user string) (hash []byte, list []mail.Address, err error) {
	rows, err := a.db.QueryContext(ctx, a.query, user)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }() // what went wrong, rows.Err has told
	columns, err := rows.Columns()
	if err != nil {
		return nil, nil, err
	}
	var address sql.NullString
	into := []any{&hash, &address}[:min(2, len(columns))]
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, nil, err
		}
		if !address.Valid {
			continue
		}
		parsed, err := mail.ParseAddress(address.String)
		if err != nil || len(list) == maxAddresses {
			return nil, nil, fmt.Errorf("the addresses of %q: %w", user, errors.Join(err, errors.New("not a list of at most 1,000 addresses")))
		}
		list = append(list, parsed)
	}
	return hash, list, rows.Err()
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "sqlauth", Version: "0.1.0", Doc: "finds accounts in a database", Kinds: (*SQLAuth)(nil), New: newSQLAuth,
	}
}

func main() { sdk.Serve(plugin()) }
