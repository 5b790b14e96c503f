package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// check finds what is wrong with values that are right one by one.
func (d *decoder) check() {
	d.checkNetworks()
	d.checkListeners()
	d.checkAddresses()
	d.checkRoutes()
	d.checkDomains()
	d.checkQueue()
	d.checkUses()
	d.checkAuth()
	for _, p := range d.cfg.Plugins {
		d.checkPlugin(p)
	}
	if !d.diags.HasErrors() { // what is wrong where it is used would look like not being used
		d.checkDestinations()
		d.checkPipelines()
		d.checkUnused()
	}
	d.checkAdmin()
	if !d.options.Offline {
		for _, t := range d.cfg.TLS {
			d.checkCertificate(t)
		}
	}
}

func (d *decoder) checkNetworks() {
	for i, n := range d.cfg.Networks {
		if n.Bits() == 0 {
			d.errorAt(d.cfg.places.item(d.cfg, "networks", i), "everyone on the internet could relay through us (an open relay)")
		}
	}
}

func (d *decoder) checkListeners() {
	if len(d.cfg.Listeners) == 0 && !d.diags.HasErrors() {
		d.report(Diagnostic{File: d.sources[0].name, Summary: "there is no listener, so no mail can come in"})
	}
	for _, l := range d.cfg.Listeners {
		d.checkListener(l)
	}
}

func (d *decoder) checkListener(l *Listener) {
	at := func(name string) hcl.Range { return d.cfg.places.at(l, name) }
	// A key that is written but wrong counts as written: its own mistake is enough.
	hasTLS := d.cfg.places.written(l, "tls")
	hasAuth := d.cfg.places.written(l, "auth")
	open := d.firstPublic(l)
	switch {
	case l.Implicit && !hasTLS:
		d.hintAt(at("implicit"), "tls = tls.NAME", "listener %q has implicit TLS, but no tls", l.Name)
	case hasAuth && !hasTLS && !l.InsecureAuth:
		d.hintAt(at("auth"), "tls = tls.NAME; on loopback insecure_auth = true will do", "listener %q would take passwords in the clear", l.Name)
	case l.InsecureAuth && open >= 0:
		d.errorAt(at("insecure_auth"), "insecure_auth is for loopback only; listener %q is also at %s", l.Name, d.cfg.places.show(l, "address", l.Address[open]))
	case l.InsecureAuth && !hasAuth:
		d.warnAt(at("insecure_auth"), "insecure_auth does nothing without auth")
	case !hasTLS && open >= 0 && l.Protocol == "smtp":
		d.warnAt(at(""), "listener %q has no tls: mail comes in readable by anyone on the way", l.Name)
	}
	if l.Protocol == "lmtp" {
		d.checkLMTP(l)
	}
}

// checkLMTP keeps LMTP off the port of SMTP (RFC 2033, 5).
func (d *decoder) checkLMTP(l *Listener) {
	for i, a := range l.Address {
		if _, port, _ := net.SplitHostPort(a); port == "25" {
			d.errorAt(d.cfg.places.item(l, "address", i), "port 25 is for SMTP; LMTP wants another (RFC 2033, 5)")
		}
	}
}

// firstPublic returns the index of the first address that is not loopback, or -1.
func (d *decoder) firstPublic(l *Listener) int {
	for i, a := range l.Address {
		if !isLoopback(a) {
			return i
		}
	}
	return -1
}

// isLoopback reports whether a host:port, or a unix:path, is reached from this machine only.
func isLoopback(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// bound is an address that is listened at.
type bound struct {
	host, port string
	who        string
	at         hcl.Range
}

// checkAddresses finds two that want the same port.
func (d *decoder) checkAddresses() {
	var all []bound
	add := func(address, who string, at hcl.Range) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "0" {
			return
		}
		b := bound{host, port, who, at}
		for _, other := range all {
			if b.clashes(other) {
				d.errorAt(at, "%s and %s (%s) want the same port", who, other.who, placeOf(other.at))
				return
			}
		}
		all = append(all, b)
	}
	for _, l := range d.cfg.Listeners {
		for i, a := range l.Address {
			add(a, fmt.Sprintf("listener %q", l.Name), d.cfg.places.item(l, "address", i))
		}
	}
	add(d.cfg.Admin.Listen, "admin.listen", d.cfg.places.at(&d.cfg.Admin, "listen"))
}

// clashes reports whether both can't be bound. An address of a family, or all of it, stands for that family only.
func (b bound) clashes(o bound) bool {
	if b.port != o.port {
		return false
	}
	for _, x := range b.hosts() {
		for _, y := range o.hosts() {
			if x.Is4() == y.Is4() && (x == y || x.IsUnspecified() || y.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

func (b bound) hosts() []netip.Addr {
	switch b.host {
	case "":
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case "localhost":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	ip, err := netip.ParseAddr(b.host)
	if err != nil {
		return nil
	}
	return []netip.Addr{ip.Unmap()}
}

func (d *decoder) checkRoutes() {
	if len(d.cfg.Routes) == 0 && !d.diags.HasErrors() {
		d.report(Diagnostic{File: d.sources[0].name, Summary: "there is no route, so no mail can be delivered"})
	}
	var all *Route
	for _, r := range d.cfg.Routes {
		d.checkRoute(r)
		if all != nil {
			d.warnAt(d.cfg.places.at(r, ""), "route %q is never reached: route %q before it takes every recipient", r.Name, all.Name)
		} else if !d.cfg.places.written(r, "domains") {
			all = r
		}
	}
	d.checkRouteFiles()
}

// checkRouteFiles warns where the order of routes hangs on the names of files.
func (d *decoder) checkRouteFiles() {
	for i, r := range d.cfg.Routes {
		at, first := d.cfg.places.at(r, ""), d.cfg.places.at(d.cfg.Routes[0], "")
		if i > 0 && at.Filename != first.Filename {
			d.warnAt(at, "routes are in several files; their order is that of the files' names, and the first that matches wins")
			return
		}
	}
}

func (d *decoder) checkRoute(r *Route) {
	var ways []string
	for _, name := range []string{"store", "lmtp", "smarthost", "mx", "router"} {
		if d.cfg.places.written(r, name) && (name != "mx" || r.MX || d.cfg.places[key{r, name}].wrong) {
			ways = append(ways, name)
		}
	}
	switch {
	case len(ways) == 0:
		d.hintAt(d.cfg.places.at(r, ""), "store = plugin.NAME, lmtp, smarthost, mx = true or router = plugin.NAME", "route %q does not say how it delivers", r.Name)
		return
	case len(ways) > 1:
		d.errorAt(d.cfg.places[key{r, ways[1]}].def, "route %q delivers in %d ways (%s); a route delivers in exactly one", r.Name, len(ways), strings.Join(ways, ", "))
		return
	}
	d.checkLogin(r)
	d.checkIdle(r, ways[0])
}

// checkLogin keeps passwords off wires that others can read.
func (d *decoder) checkLogin(r *Route) {
	user, password := d.cfg.places.written(r, "user"), d.cfg.places.written(r, "password")
	if user != password {
		have, lack := "user", "password"
		if password {
			have, lack = lack, have
		}
		d.errorAt(d.cfg.places.at(r, have), "route %q has a %s, but no %s", r.Name, have, lack)
		return
	}
	if !password {
		return
	}
	for _, hosts := range [][]string{r.Smarthost, r.LMTP} {
		for _, h := range hosts {
			if (r.TLS == "none" || r.TLS == "opportunistic") && !isLoopback(h) {
				d.hintAt(d.cfg.places.at(r, "tls"), `tls = "verify"`, "route %q could send its password in the clear", r.Name)
				return
			}
		}
	}
}

// checkIdle refuses keys that mean nothing for this way to deliver.
func (d *decoder) checkIdle(r *Route, way string) {
	for _, name := range idleKeys(way) {
		if p := d.cfg.places[key{r, name}]; d.cfg.places.written(r, name) && name != "mx" {
			d.errorAt(p.def, "%s means nothing in a route that delivers by %s", name, way)
		}
	}
}

// idleKeys returns the keys of a route that mean nothing for a way to deliver.
func idleKeys(way string) []string {
	switch way {
	case "store":
		return []string{"mx", "tls", "user", "password", "port", "allow_loopback", "source"}
	case "mx":
		return []string{"user", "password"}
	case "router":
		return []string{"mx", "user", "password"}
	default:
		return []string{"mx", "port", "allow_loopback"}
	}
}

// checkDomains wants a way for all mail that is taken as ours.
func (d *decoder) checkDomains() {
	for i, domain := range d.cfg.Domains {
		at := d.cfg.places.item(d.cfg, "domains", i)
		shown := d.cfg.places.show(d.cfg, "domains", domain)
		r := d.routeOf(domain)
		switch {
		case len(d.cfg.Routes) == 0:
		case r == nil:
			d.warnAt(at, "no route takes mail for %s: it is refused", shown)
		case r.Way() == "mx" && r.Domains == nil && r.MX:
			d.warnAt(at, "mail for %s is ours, but goes to route %q, which sends it to the hosts of that domain: likely to us", shown, r.Name)
		}
	}
}

// routeOf returns the first route that takes a domain. A route whose domains are wrong may be it.
func (d *decoder) routeOf(domain string) *Route {
	for _, r := range d.cfg.Routes {
		if r.Domains == nil {
			return r
		}
		for _, p := range r.Domains {
			if suffix, wild := strings.CutPrefix(p, "*"); p == domain || wild && strings.HasSuffix(domain, suffix) {
				return r
			}
		}
	}
	return nil
}

func (d *decoder) checkQueue() {
	q := &d.cfg.Queue
	ps := d.cfg.places
	for i, delay := range q.Retry {
		if q.Expire > 0 && delay >= q.Expire {
			d.errorAt(ps.orAt(q, "retry", i, "expire"), "expire (%s) has to be longer than each retry (%s): mail would not be tried again",
				durationText(q.Expire), durationText(delay))
			return
		}
	}
	if len(q.Retry) == 0 && ps.written(q, "retry") && !d.diags.HasErrors() {
		d.errorAt(ps.at(q, "retry"), "queue.retry is empty; mail would never be tried again")
	}
	if q.WarnAfter > 0 && q.Expire > 0 && q.WarnAfter >= q.Expire {
		d.errorAt(ps.orAt(q, "warn_after", 0, "expire"), "expire (%s) has to be longer than warn_after (%s)", durationText(q.Expire), durationText(q.WarnAfter))
	}
}

// orAt returns the place of one of two keys that contradict each other: the one that is written.
func (ps places) orAt(block any, name string, i int, other string) hcl.Range {
	if ps.written(block, name) {
		return ps.item(block, name, i)
	}
	return ps.at(block, other)
}

// checkDestinations warns where the limits of destinations are not kept.
func (d *decoder) checkDestinations() {
	for _, r := range d.cfg.Routes {
		if r.Way() == "router" && len(d.cfg.Queue.Destinations) > 0 {
			d.warnAt(d.cfg.places.at(r, "router"), "the limits of the destinations are not kept where a router chooses the host: all mail of route %q has those of one site (queue.connections)", r.Name)
		}
	}
}

// checkUnused warns of what is declared and never named.
func (d *decoder) checkUnused() {
	warn := func(kind, name string, block any) {
		if !d.used[ref{kind, name}] {
			d.warnAt(d.cfg.places.at(block, ""), "%s %q is used nowhere", kind, name)
		}
	}
	for _, p := range d.cfg.Plugins {
		warn("plugin", p.Name, p)
	}
	for _, t := range d.cfg.TLS {
		warn("tls", t.Name, t)
	}
	for _, p := range d.cfg.Pipelines {
		warn("pipeline", p.Name, p)
	}
}

func (d *decoder) checkAdmin() {
	a := &d.cfg.Admin
	if a.Listen != "" && !isLoopback(a.Listen) {
		d.warnAt(d.cfg.places.at(a, "listen"), "the console shows who writes to whom; admin.listen should be loopback")
	}
}

// checkCertificate reads a certificate and its key, as the server will.
func (d *decoder) checkCertificate(t *TLS) {
	if t.CertFile == "" || t.KeyFile == "" {
		return
	}
	var pem [2][]byte
	for i, f := range []struct{ name, path string }{{"cert_file", t.CertFile}, {"key_file", t.KeyFile}} {
		b, err := readFile(f.path, maxFile)
		if err != nil {
			d.errorAt(d.cfg.places.at(t, f.name), "%s can't be read: %s", d.cfg.places.show(t, f.name, f.path), reason(err))
			return
		}
		pem[i] = b
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		d.errorAt(d.cfg.places.at(t, "key_file"), "tls %q: %s", t.Name, strings.TrimPrefix(err.Error(), "tls: "))
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err == nil && time.Now().After(leaf.NotAfter) {
		d.warnAt(d.cfg.places.at(t, "cert_file"), "the certificate of tls %q has expired on %s", t.Name, leaf.NotAfter.Format(time.DateOnly))
	}
}
