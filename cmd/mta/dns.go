package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/net/idna"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
)

func dnsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dns [DOMAIN...]",
		Short: "Print the DNS records that a domain needs",
		Long: "Print the DNS records that the configuration asks for, as lines of a zone file: where mail goes, who may send it, and\n" +
			"where mail programs find their servers. Without a DOMAIN, those of all our domains.",
		Example: "  mta dns example.com >>example.com.zone",
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load(cmd, false)
		if err != nil {
			return err
		}
		for _, domain := range args {
			if !slices.ContainsFunc(cfg.Domains, func(d string) bool { return fqdn(d) == fqdn(domain) }) {
				return fmt.Errorf("%s is none of our domains: %s", domain, strings.Join(cfg.Domains, ", "))
			}
		}
		if len(args) == 0 {
			args = cfg.Domains
		}
		for _, domain := range args {
			for _, r := range recordsOf(cfg, domain) {
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), r)
				} else {
					err = printRecord(cmd.OutOrStdout(), r)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
	return cmd
}

// dnsRecord is a record, or with neither type nor data what to know about the next one.
type dnsRecord struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
	Data string `json:"data,omitempty"`
	Note string `json:"note,omitempty"`
}

func printRecord(out io.Writer, r dnsRecord) (err error) {
	if r.Note != "" {
		_, err = fmt.Fprintf(out, "; %s\n", r.Note)
	}
	if r.Type != "" && err == nil {
		_, err = fmt.Fprintf(out, "%-40s IN %-5s %s\n", r.Name, r.Type, r.Data)
	}
	return err
}

// fqdn is a name as zone files have it.
func fqdn(name string) string {
	name = strings.ToLower(name)
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		name = ascii
	}
	return strings.TrimSuffix(name, ".") + "."
}

// recordsOf returns the records of a domain of ours.
func recordsOf(cfg *config.Config, domain string) (list []dnsRecord) {
	zone, host := fqdn(domain), fqdn(cfg.Hostname)
	add := func(name, kind, data, note string) { list = append(list, dnsRecord{name, kind, data, note}) }
	add(zone, "MX", "10 "+host, "mail for "+domain+" comes to us; "+atPort25(cfg))
	list = append(list, addressRecords(cfg, host)...)
	add(zone, "TXT", `"v=spf1 mx -all"`, "who may send mail of "+domain+": its MX hosts (RFC 7208)")
	add("_dmarc."+zone, "TXT", `"v=DMARC1; p=none; rua=mailto:postmaster@`+strings.TrimSuffix(zone, ".")+`"`,
		"what to do with mail that is not: report it, until the reports show that p=quarantine does no harm (RFC 7489)")
	list = append(list, tlsaRecords(cfg, host)...)
	list = append(list, serviceRecords(mailSettings(cfg), zone)...)
	if where := cfg.Admin.Listen; where != "" && len(mailSettings(cfg).Servers) > 0 {
		name := "autoconfig." + zone
		add(name, "CNAME", host, "mail programs ask http://"+strings.TrimSuffix(name, ".")+"/mail/config-v1.1.xml; let a web server pass that path on to http://"+where)
	}
	return list
}

// addressRecords are those of our host, where a listener names an address.
func addressRecords(cfg *config.Config, host string) (list []dnsRecord) {
	back := "a PTR leads from each address back to " + host + "; servers look (RFC 5321, 4.1.4)"
	for _, ip := range publicAddresses(cfg) {
		kind := "AAAA"
		if ip.To4() != nil {
			kind = "A"
		}
		list = append(list, dnsRecord{host, kind, ip.String(), back})
		back = ""
	}
	if len(list) == 0 {
		list = []dnsRecord{{Note: host + " wants an A or AAAA, the address that the world sees, and " + back}}
	}
	return list
}

// atPort25 says whether other servers can reach us.
func atPort25(cfg *config.Config) string {
	for _, l := range cfg.Listeners {
		for _, address := range l.Address {
			if host, port, err := net.SplitHostPort(address); err == nil && port == "25" && !isLoopbackHost(host) {
				return "port 25 is open for it"
			}
		}
	}
	return "but no listener is on port 25 of an address that others reach"
}

// publicAddresses are those that a listener names.
func publicAddresses(cfg *config.Config) (list []net.IP) {
	for _, l := range cfg.Listeners {
		for _, address := range l.Address {
			host, _, _ := net.SplitHostPort(address)
			ip := net.ParseIP(host)
			if ip == nil || !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(list, ip.Equal) {
				continue
			}
			list = append(list, ip)
		}
	}
	return list
}

// tlsaRecords pin the keys of the listeners on port 25 (RFC 7672, 3.1.1: of the key, so that a renewed certificate does
// not break it).
func tlsaRecords(cfg *config.Config, host string) (list []dnsRecord) {
	for _, l := range cfg.Listeners {
		if l.TLS == "" || l.Auth != "" || l.Protocol != "smtp" {
			continue
		}
		i := slices.IndexFunc(cfg.TLS, func(t *config.TLS) bool { return t.Name == l.TLS })
		if i < 0 {
			continue
		}
		digest, err := keyDigest(cfg.TLS[i])
		if err != nil {
			list = append(list, dnsRecord{Note: "no TLSA for listener " + l.Name + ": " + err.Error()})
			continue
		}
		r := dnsRecord{"_25._tcp." + host, "TLSA", "3 1 1 " + digest, "which key we show; only where the zone is signed, and to be changed before the key is (RFC 7672)"}
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

func keyDigest(t *config.TLS) (string, error) {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return "", err
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// serviceRecords tell mail programs where to go (RFC 6186, RFC 8314). A service that there is not is said to be none,
// because a client may look for it.
func serviceRecords(s admin.MailSettings, zone string) (list []dnsRecord) {
	note := "where mail programs find their servers (RFC 6186, RFC 8314)"
	for i, service := range []struct {
		name, protocol string
		implicit       bool
	}{
		{"_imaps", "imap", true}, {"_imap", "imap", false}, {"_pop3s", "pop3", true}, {"_pop3", "pop3", false},
		{"_submissions", "smtp", true}, {"_submission", "smtp", false},
	} {
		data := "0 0 0 ."
		for _, m := range s.Servers {
			if m.Protocol == service.protocol && (m.TLS == "implicit") == service.implicit && !isLoopbackHost(m.Host) {
				data = fmt.Sprintf("0 1 %d %s", m.Port, fqdn(m.Host))
				break
			}
		}
		r := dnsRecord{Name: service.name + "._tcp." + zone, Type: "SRV", Data: data}
		if i == 0 {
			r.Note = note
		}
		list = append(list, r)
	}
	return list
}
