package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
)

// mailboxListener is where mail is read.
type mailboxListener struct {
	protocol string
	Address  []string
	Implicit bool
	CertFile string `json:"cert_file"`
}

// mailboxListeners are those of the plugins "builtin:maildir".
func mailboxListeners(cfg *config.Config) (list []mailboxListener) {
	for _, p := range cfg.Plugins {
		var c struct{ IMAP, POP3 []mailboxListener }
		if p.Builtin() != "maildir" || json.Unmarshal(p.Config, &c) != nil {
			continue
		}
		for protocol, blocks := range map[string][]mailboxListener{"imap": c.IMAP, "pop3": c.POP3} {
			for _, b := range blocks {
				b.protocol = protocol
				list = append(list, b)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b mailboxListener) int { return strings.Compare(a.protocol, b.protocol) })
	return list
}

// mailSettings are what a mail program is told: where mail is read and handed in, and how.
func mailSettings(cfg *config.Config) admin.MailSettings {
	s := admin.MailSettings{Name: cfg.Hostname, Domains: cfg.Domains}
	add := func(protocol string, addresses []string, tls string) {
		for _, address := range addresses {
			m := admin.MailServer{Protocol: protocol, TLS: tls}
			host, port, err := net.SplitHostPort(address)
			n, err2 := strconv.ParseUint(port, 10, 16)
			if err != nil || err2 != nil {
				continue
			}
			m.Host, m.Port = publicHost(host, cfg.Hostname), uint16(n)
			if !slices.Contains(s.Servers, m) { // 0.0.0.0 and [::] are one
				s.Servers = append(s.Servers, m)
			}
		}
	}
	for _, l := range mailboxListeners(cfg) {
		add(l.protocol, l.Address, tlsWord(l.Implicit, l.CertFile != ""))
	}
	for _, l := range cfg.Listeners {
		if l.Auth != "" && l.Protocol == "smtp" {
			add("smtp", l.Address, tlsWord(l.Implicit, l.TLS != ""))
		}
	}
	return s
}

func tlsWord(implicit, possible bool) string {
	switch {
	case implicit:
		return "implicit"
	case possible:
		return "starttls"
	}
	return "none"
}

// publicHost is the name that a client uses for a listener's host: ours, but on loopback, where that name leads nowhere.
func publicHost(host, ours string) string {
	if isLoopbackHost(host) {
		return host
	}
	return ours
}

func isLoopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
