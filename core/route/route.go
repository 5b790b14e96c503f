// Package route says which route takes a recipient, and why the ones before it do not.
//
// It is a table and a loop: nothing is resolved, nothing is remembered, and delivery, relay control and `mta explain`
// call the very same function. The null address is taken by no route. A table that has no route for a recipient says so
// by a nil Route; what to do then is the caller's business.
package route

import (
	"fmt"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Kind is the one way in which a route delivers.
type Kind uint8

// The kinds of route. The zero value is no kind: a Route must be given one.
const (
	Store     Kind = iota + 1 // a store plugin of ours
	LMTP                      // an LMTP server
	Smarthost                 // one next hop for everything
	MX                        // the hosts that the recipient's domain names
	Router                    // a router plugin of ours says where
)

var kindNames = [...]string{"unspecified", "store", "lmtp", "smarthost", "mx", "router"}

// String returns the word that stands in mta.hcl.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Final reports whether a route of this kind ends in a mailbox, so that what it delivers is delivered and not relayed.
func (k Kind) Final() bool { return k == Store || k == LMTP }

// Route is one route block.
type Route struct {
	Name    string
	Kind    Kind
	Domains []string // canonical as mail.ParseDomain makes them; "*.example.com" is every subdomain; nil is every domain
	Local   bool     // its recipients are ours: mail for them is taken from anyone
}

// Matches reports whether the route takes addresses of this domain.
func (r *Route) Matches(domain string) bool {
	if r.Domains == nil {
		return true
	}
	for _, pattern := range r.Domains {
		if matches(pattern, domain) {
			return true
		}
	}
	return false
}

// matches compares without regard to case, since domain names have none (RFC 5321, 2.4). A wildcard stands for at least
// one whole label: "*.example.com" takes a.example.com and b.a.example.com, not example.com and not badexample.com.
func matches(pattern, domain string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	if !wild {
		return strings.EqualFold(pattern, domain)
	}
	at := len(domain) - len(suffix)
	return strings.HasPrefix(suffix, ".") && at > 0 && strings.EqualFold(domain[at:], suffix)
}

// Site returns the name of the queue that mail for the domain waits in: messages of one site share connections, limits and
// back-off. A route to one fixed next hop is one site; an mx route has a site for each domain.
func (r *Route) Site(domain string) string {
	if r.Kind == MX {
		return r.Name + "/" + domain
	}
	return r.Name
}

// Table is the routes in the order of the file.
type Table []*Route

// Miss is a route that was passed over, and why, in words for the operator.
type Miss struct {
	Route *Route
	Why   string
}

// Find returns the first route that takes the address, or nil, and explains the routes before it.
func (t Table) Find(a mail.Address) (r *Route, passed []Miss) {
	for _, r := range t {
		if !a.IsNull() && r.Matches(a.Domain()) {
			return r, passed
		}
		passed = append(passed, Miss{r, why(r, a)})
	}
	return nil, passed
}

// Take is Find without the explanation: it allocates nothing, for the path that every message takes.
func (t Table) Take(a mail.Address) *Route {
	if a.IsNull() {
		return nil
	}
	for _, r := range t {
		if r.Matches(a.Domain()) {
			return r
		}
	}
	return nil
}

// maxNamed bounds how many domains an explanation names.
const maxNamed = 5

func why(r *Route, a mail.Address) string {
	switch n := len(r.Domains); {
	case a.IsNull():
		return "the null address has no route"
	case n == 0:
		return "it lists no domain"
	case n > maxNamed:
		return fmt.Sprintf("%s is not among its %d domains (%s, …)", a.Domain(), n, strings.Join(r.Domains[:maxNamed], ", "))
	default:
		return fmt.Sprintf("%s is not among its domains (%s)", a.Domain(), strings.Join(r.Domains, ", "))
	}
}
