package admin

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAutoconfig asks as Thunderbird does, at both paths, and reads the answer as it does.
func TestAutoconfig(t *testing.T) {
	settings := MailSettings{Name: "mx1.example.com", Domains: []string{"example.com", "xn--vv4b11d.example"}, Servers: []MailServer{
		{"pop3", "mx1.example.com", 995, "implicit"}, {"imap", "mx1.example.com", 143, "starttls"}, {"imap", "127.0.0.1", 1143, "none"},
		{"imap", "mx1.example.com", 993, "implicit"}, {"smtp", "mx1.example.com", 465, "implicit"},
	}}
	f := &fake{}
	h := Pages(f, NewMetrics(f.Status), func() MailSettings { return settings })
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	for _, path := range []string{
		"/mail/config-v1.1.xml?emailaddress=ann%40EXAMPLE.com", "/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/config-v1.1.xml?emailaddress=xn--vv4b11d.example",
	} {
		w := ask(path)
		var doc clientConfig
		if err := xml.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/xml") {
			t.Fatalf("%s: %d, %v\n%s", path, w.Code, err, w.Body)
		}
		p := doc.Provider
		if doc.Version != "1.1" || p.ID != settings.Name || len(p.Domains) != 2 || len(p.Outgoing) != 1 || p.Outgoing[0].Socket != "SSL" {
			t.Errorf("%+v", doc)
		}
		var order []string
		for _, s := range p.Incoming {
			order = append(order, s.Type+" "+s.Socket)
			if s.User != "%EMAILADDRESS%" || s.Password != "password-cleartext" || s.Host == "" || s.Port == 0 {
				t.Errorf("%+v", s)
			}
		}
		if got := strings.Join(order, ", "); got != "imap SSL, imap STARTTLS, imap plain, pop3 SSL" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if w := ask("/mail/config-v1.1.xml?emailaddress=ann@example.org"); w.Code != http.StatusNotFound {
		t.Errorf("a domain that is not ours: %d", w.Code)
	}
	settings.Servers = nil
	if w := ask("/mail/config-v1.1.xml"); w.Code != http.StatusNotFound {
		t.Errorf("no servers: %d", w.Code)
	}
}
