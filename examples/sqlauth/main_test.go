package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// databases are a file of SQLite and, where MTA_TEST_POSTGRES says how to reach one, a PostgreSQL.
func databases(t *testing.T) map[string]map[string]string {
	list := map[string]map[string]string{"sqlite": {"driver": "sqlite", "dsn": filepath.Join(t.TempDir(), "mail.db")}}
	if dsn := os.Getenv("MTA_TEST_POSTGRES"); dsn != "" {
		list["postgres"] = map[string]string{"driver": "postgres", "dsn": dsn}
	} else {
		t.Log("PostgreSQL is left out: MTA_TEST_POSTGRES names none")
	}
	for _, config := range list {
		db, err := sql.Open(config["driver"], config["dsn"])
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		hash, err := bcrypt.GenerateFromPassword([]byte("tulip"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{
			"DROP TABLE IF EXISTS accounts", "DROP TABLE IF EXISTS addresses",
			"CREATE TABLE accounts (login TEXT PRIMARY KEY, hash TEXT NOT NULL)", "CREATE TABLE addresses (login TEXT, address TEXT)",
			"INSERT INTO accounts VALUES ('ann@here.example', '" + string(hash) + "'), ('bob@here.example', 'not a hash'), ('eve@here.example', '" + string(hash) + "')",
			"INSERT INTO addresses VALUES ('ann@here.example', 'sales@here.example'), ('ann@here.example', 'ann@other.example'), ('eve@here.example', 'no address')",
		} {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(s, err)
			}
		}
	}
	return list
}

const joined = "SELECT hash, address FROM accounts LEFT JOIN addresses USING (login) WHERE login = $1"

func TestAuthenticate(t *testing.T) {
	for name, config := range databases(t) {
		config["query"] = joined
		for place, p := range map[string]*plugintest.Plugin{"memory": plugintest.New(t, sdk.Of(plugin()), config), "process": plugintest.Exec(t, os.Args[0], config)} {
			id, err := p.Authenticate(t.Context(), mail.Login{User: "ann@here.example", Password: "tulip"})
			if err != nil || id.User != "ann@here.example" || len(id.Addresses) != 2 || id.AnySender {
				t.Errorf("%s, %s: %+v, %v", name, place, id, err)
			}
			for _, l := range []mail.Login{
				{User: "ann@here.example", Password: "rose"}, {User: "ann@here.example"}, {User: "nobody", Password: "nobody"}, {},
				{User: "' OR 1=1 --", Password: "tulip"}, {User: "ann@here.example", Password: strings.Repeat("x", 1000)},
			} {
				if id, err := p.Authenticate(t.Context(), l); err == nil {
					t.Errorf("%s, %s: %v is %+v", name, place, l, id)
				} else if !errors.Is(err, mail.ErrBadLogin) && len(l.Password) <= 72 {
					t.Errorf("%s, %s: %v: %v", name, place, l, err)
				}
			}
			// What nobody can tell is no wrong password.
			for _, user := range []string{"bob@here.example", "eve@here.example"} {
				if id, err := p.Authenticate(t.Context(), mail.Login{User: user, Password: "tulip"}); err == nil || errors.Is(err, mail.ErrBadLogin) {
					t.Errorf("%s, %s: %s: %+v, %v", name, place, user, id, err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if id, err := p.Authenticate(ctx, mail.Login{User: "ann@here.example", Password: "tulip"}); err == nil {
				t.Errorf("%s, %s: %+v when nobody waits", name, place, id)
			}
		}
	}
}

// TestOneColumn needs no table of addresses.
func TestOneColumn(t *testing.T) {
	for name, config := range databases(t) {
		id, err := plugintest.New(t, sdk.Of(plugin()), config).Authenticate(t.Context(), mail.Login{User: "ann@here.example", Password: "tulip"})
		if err != nil || id.User != "ann@here.example" || len(id.Addresses) != 0 {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// TestTheDatabaseGoes lets nobody in, and says that it is no wrong password.
func TestTheDatabaseGoes(t *testing.T) {
	config := databases(t)["sqlite"]
	p := plugintest.New(t, sdk.Of(plugin()), config)
	db, err := sql.Open("sqlite", config["dsn"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "DROP TABLE accounts"); err != nil {
		t.Fatal(err)
	}
	if id, err := p.Authenticate(t.Context(), mail.Login{User: "ann@here.example", Password: "tulip"}); err == nil || errors.Is(err, mail.ErrBadLogin) {
		t.Errorf("%+v, %v", id, err)
	}
}
