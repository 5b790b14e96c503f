package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func delivery(id, content string, to ...string) *mail.Delivery {
	d := &mail.Delivery{ID: id, From: mail.MustParseAddress("bob@there.example"), Content: mail.Bytes([]byte(content)), Time: time.Unix(1_800_000_000, 0)}
	for _, a := range to {
		d.To = append(d.To, mail.Recipient{Address: mail.MustParseAddress(a)})
	}
	return d
}

func store(t *testing.T, p *plugintest.Plugin, d *mail.Delivery) {
	t.Helper()
	replies, err := p.Store(t.Context(), d)
	if err != nil || len(replies) != len(d.To) {
		t.Fatal(replies, err)
	}
	for _, r := range replies {
		if !r.Positive() {
			t.Error(r)
		}
	}
}

// entries reads an index, and proves each object by its name.
func entries(t *testing.T, dir string) (list []entry, objects int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		object, err := os.ReadFile(filepath.Join(dir, "objects", e.SHA256[:2], e.SHA256[2:]))
		if err != nil || int64(len(object)) != e.Size {
			t.Errorf("%v: %d bytes, %v", e, len(object), err)
		}
		list = append(list, e)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "objects", "*", "*"))
	litter, _ := filepath.Glob(filepath.Join(dir, "objects", ".new-*"))
	if len(litter) > 0 {
		t.Error(litter)
	}
	return list, len(files)
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	p := plugintest.Exec(t, os.Args[0], map[string]string{"path": dir})
	store(t, p, delivery("1", "Subject: a\r\n\r\nb\r\n", "ann@a.example", `"../../x\"y"@a.example`))
	store(t, p, delivery("1", "Subject: a\r\n\r\nb\r\n", "ann@a.example", "carol@a.example")) // our answer for ann was lost
	store(t, p, delivery("2", "Subject: a\r\n\r\nb\r\n", "ann@a.example"))
	store(t, p, delivery("3", strings.Repeat("large\r\n", 1<<17), "ann@a.example"))
	store(t, p, delivery("4", "", "ann@a.example"))
	list, objects := entries(t, dir)
	if len(list) != 6 || objects != 3 {
		t.Errorf("%d entries, %d objects: %v", len(list), objects, list)
	}
	if e := list[1]; e.To != `"../../x\"y"@a.example` || e.From != "bob@there.example" || e.ID != "1" || e.Time.Unix() != 1_800_000_000 {
		t.Errorf("%+v", e)
	}
}

// TestTwoProcesses has an old and a new process of the plugin at work, as in a reload, on the same messages.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 2 {
		p := plugintest.Exec(t, os.Args[0], map[string]string{"path": dir})
		for i := range 20 {
			wg.Go(func() { store(t, p, delivery(fmt.Sprint(i), fmt.Sprint(i), "ann@a.example")) })
		}
	}
	wg.Wait()
	if list, objects := entries(t, dir); len(list) != 20 || objects != 20 {
		t.Errorf("%d entries, %d objects", len(list), objects)
	}
}

// TestAfterACrash finds half a line at the end of the index.
func TestAfterACrash(t *testing.T) {
	dir := t.TempDir()
	config := map[string]string{"path": dir}
	store(t, plugintest.New(t, sdk.Of(plugin()), config), delivery("1", "x", "ann@a.example"))
	f, err := os.OpenFile(filepath.Join(dir, "index"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"time":"2026-`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	p := plugintest.New(t, sdk.Of(plugin()), config)
	store(t, p, delivery("1", "x", "ann@a.example"))
	store(t, p, delivery("2", "x", "ann@a.example"))
	if list, _ := entries(t, dir); len(list) != 2 || list[1].ID != "2" {
		t.Error(list)
	}
}

// TestTrouble tells the server that nothing is stored.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	p := plugintest.New(t, sdk.Of(plugin()), map[string]string{"path": dir})
	if err := os.RemoveAll(filepath.Join(dir, "objects")); err != nil {
		t.Fatal(err)
	}
	if replies, err := p.Store(t.Context(), delivery("1", "x", "ann@a.example")); err == nil {
		t.Error(replies)
	}
	if list, _ := os.ReadFile(filepath.Join(dir, "index")); len(list) > 0 {
		t.Errorf("%s", list)
	}
}
