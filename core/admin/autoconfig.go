package admin

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// MailServer is a server that a mail program is told of.
type MailServer struct {
	Protocol string // imap, pop3 or smtp
	Host     string
	Port     uint16
	TLS      string // implicit (from the first byte), starttls or none
}

// MailSettings is what a mail program needs to know about the mail of our domains.
type MailSettings struct {
	Name    string // of us, for people
	Domains []string
	Servers []MailServer
}

// The two places where mail programs look, on a host named autoconfig.DOMAIN and on DOMAIN itself
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration).
const (
	autoconfigPath      = "/mail/config-v1.1.xml"
	autoconfigKnownPath = "/.well-known/autoconfig/mail/config-v1.1.xml"
)

type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider struct {
		ID       string       `xml:"id,attr"`
		Domains  []string     `xml:"domain"`
		Name     string       `xml:"displayName"`
		Incoming []configured `xml:"incomingServer"`
		Outgoing []configured `xml:"outgoingServer"`
	} `xml:"emailProvider"`
}

type configured struct {
	Type     string `xml:"type,attr"`
	Host     string `xml:"hostname"`
	Port     uint16 `xml:"port"`
	Socket   string `xml:"socketType"`
	User     string `xml:"username"`
	Password string `xml:"authentication"`
}

// Autoconfig writes the settings as Thunderbird and others read them. Of IMAP and POP3 the first is what they take, so
// IMAP comes first, and TLS before none.
func Autoconfig(s MailSettings) ([]byte, error) {
	doc := clientConfig{Version: "1.1"}
	doc.Provider.ID, doc.Provider.Domains, doc.Provider.Name = s.Name, s.Domains, s.Name
	servers := slices.Clone(s.Servers)
	slices.SortStableFunc(servers, func(a, b MailServer) int { return strings.Compare(preference(a), preference(b)) })
	for _, m := range servers {
		c := configured{m.Protocol, m.Host, m.Port, socketType(m.TLS), "%EMAILADDRESS%", "password-cleartext"}
		if m.Protocol == "smtp" {
			doc.Provider.Outgoing = append(doc.Provider.Outgoing, c)
		} else {
			doc.Provider.Incoming = append(doc.Provider.Incoming, c)
		}
	}
	b, err := xml.MarshalIndent(doc, "", "  ")
	return slices.Concat([]byte(xml.Header), b, []byte("\n")), err
}

func preference(m MailServer) string { return m.Protocol + " " + order()[m.TLS] }

func order() map[string]string {
	return map[string]string{"implicit": "0", "starttls": "1", "none": "2"}
}

func socketType(tls string) string {
	return map[string]string{"implicit": "SSL", "starttls": "STARTTLS", "none": "plain"}[tls]
}

// serveAutoconfig answers with the settings. Whoever asks about another domain than ours gets nothing.
func serveAutoconfig(w http.ResponseWriter, r *http.Request, s MailSettings) {
	domain := r.URL.Query().Get("emailaddress")
	if at := strings.LastIndexByte(domain, '@'); at >= 0 {
		domain = domain[at+1:]
	}
	ours := slices.ContainsFunc(s.Domains, func(d string) bool { return strings.EqualFold(d, domain) })
	if len(s.Servers) == 0 || domain != "" && !ours {
		http.Error(w, "no mail is kept here for that address", http.StatusNotFound)
		return
	}
	b, err := Autoconfig(s)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, "%s", b)
}
