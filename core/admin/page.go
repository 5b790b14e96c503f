package admin

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pabal-mta/mta/core/queue"
)

//go:embed page.html
var pageText string

// pageMessages is how many queued messages the page shows.
const pageMessages = 50

// Pages serves what may be looked at without a password: /metrics for Prometheus, /healthz (the process answers), /readyz
// (it can do its work; otherwise 503 and why), and a page with the status and the oldest queued messages at /. It changes
// nothing, whatever is asked.
//
// Mail programs find their settings here too, see Autoconfig; settings is called for each that asks.
func Pages(s Server, m *Metrics, settings func() MailSettings) http.Handler {
	page := template.Must(template.New("page").Funcs(template.FuncMap{
		"ago": func(t time.Time) string { return Ago(time.Since(t)) }, "until": func(t time.Time) string { return Ago(time.Until(t)) },
		"bytes": Bytes, "join": strings.Join,
	}).Parse(pageText))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	for _, path := range []string{autoconfigPath, autoconfigKnownPath} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { serveAutoconfig(w, r, settings()) })
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { showPage(w, r, s, page) })
	return secured(mux)
}

// secured adds the headers that keep a page of peers' words from doing anything in a browser.
func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

func showPage(w http.ResponseWriter, r *http.Request, s Server, page *template.Template) {
	data := struct {
		Status
		Messages []Message
		Now      time.Time
	}{Status: s.Status(), Now: time.Now()}
	err := s.List(r.Context(), queue.Filter{Limit: pageMessages}, func(rec Listed) error {
		data.Messages = append(data.Messages, MessageOf(rec))
		return nil
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, b.String())
}

// Ago writes a length of time as a person says it: "3 s", "12 min", "4 h", "2 d".
func Ago(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}

// Bytes writes a size as a person says it: "512 B", "14 KiB", "1.5 GiB".
func Bytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v /= 1 << 10; v < 1<<10 {
			break
		}
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
