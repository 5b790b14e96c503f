package users_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestOverTheWire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	f, err := users.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	p := plugintest.New(t, users.Plugin(), map[string]any{"file": path})
	login := mail.Login{User: "Ann@example.com", Password: "right"}
	if _, err := p.Authenticate(t.Context(), login); err == nil || errors.Is(err, mail.ErrBadLogin) {
		t.Errorf("before there is a file: %v", err)
	}
	if err := f.Add(users.Account{Name: mail.MustParseAddress("ann@example.com"), AnySender: true}, "right"); err != nil {
		t.Fatal(err)
	}
	if id, err := p.Authenticate(t.Context(), login); err != nil || id.User != "ann@example.com" || !id.AnySender {
		t.Errorf("ann is %+v, %v", id, err)
	}
	login.Password = "wrong"
	if _, err := p.Authenticate(t.Context(), login); !errors.Is(err, mail.ErrBadLogin) {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestConfigProblems(t *testing.T) {
	for path, config := range map[string]string{
		"file":     `{}`,
		"parallel": `{"file": "x", "parallel": 0}`,
		"cache":    `{"file": "x", "cache": "-1s"}`,
	} {
		if p := plugintest.Problems(t, users.Plugin(), config); len(p) != 1 || len(p[0].Path) != 1 || p[0].Path[0] != path {
			t.Errorf("%s: %v", config, p)
		}
	}
}
