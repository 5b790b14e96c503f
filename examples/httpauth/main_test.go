package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

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

// service is the application, which answers as it is told.
func service(t *testing.T, answer http.HandlerFunc) (config map[string]string) {
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return map[string]string{"url": s.URL, "token": "tulip"}
}

func login(password string) mail.Login {
	return mail.Login{User: "ann", Password: password, Service: "smtp", Remote: netip.MustParseAddrPort("192.0.2.1:25")}
}

func TestAuthenticate(t *testing.T) {
	config := service(t, func(w http.ResponseWriter, r *http.Request) {
		var q question
		_ = json.NewDecoder(r.Body).Decode(&q)
		if q != (question{"ann", "right \"pass\"", "smtp", "192.0.2.1"}) || r.Header.Get("Authorization") != "Bearer tulip" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(answer{"ann@here.example", []string{"sales@here.example"}})
	})
	for name, p := range map[string]*plugintest.Plugin{"memory": plugintest.New(t, sdk.Of(plugin()), config), "process": plugintest.Exec(t, os.Args[0], config)} {
		id, err := p.Authenticate(t.Context(), login("right \"pass\""))
		if err != nil || id.User != "ann@here.example" || len(id.Addresses) != 1 || id.Addresses[0].Local() != "sales" || id.AnySender {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		for _, wrong := range []string{"wrong", "", "\xff\x00"} {
			if id, err := p.Authenticate(t.Context(), login(wrong)); !errors.Is(err, mail.ErrBadLogin) {
				t.Errorf("%s: %q: %+v, %v", name, wrong, id, err)
			}
		}
	}
}

// TestTrouble never lets anybody in, and never says that a password is wrong.
func TestTrouble(t *testing.T) {
	elsewhere := service(t, func(http.ResponseWriter, *http.Request) { t.Error("a password went elsewhere") })
	write := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere["url"], http.StatusTemporaryRedirect)
		},
		"silence": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is seen
			<-r.Context().Done()
		},
		"no JSON":     write("<html>OK"),
		"nobody":      write(`{"user": ""}`),
		"controls":    write(`{"user": "ann\r\n"}`),
		"no address":  write(`{"user": "ann", "addresses": ["x y"]}`),
		"a long name": write(`{"user": "` + strings.Repeat("x", 1<<20) + `"}`),
	} {
		p := plugintest.New(t, sdk.Of(plugin()), service(t, answer))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if id, err := p.Authenticate(ctx, login("secret")); err == nil || errors.Is(err, mail.ErrBadLogin) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		cancel()
	}
}

func TestWrongConfig(t *testing.T) {
	for config, ok := range map[string]bool{
		`{}`: false, `{"url": "http://app.example/"}`: false, `{"url": "app.example"}`: false, `{"url": "http://[::1]:8000/x"}`: true,
		`{"url": "http://localhost:8000"}`: true, `{"url": "https://app.example/login"}`: true,
	} {
		if problems := plugintest.Problems(t, sdk.Of(plugin()), config); (len(problems) == 0) != ok {
			t.Errorf("%s: %v", config, problems)
		}
	}
}
