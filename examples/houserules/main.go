// Houserules is a plugin that refuses mail by a few plain rules: who connects, what it calls itself, who sends, to how
// many people at once, and what is attached. It shows every stage of a filter.
//
// In mta.hcl:
//
//	plugin "rules" {
//	  source = "/usr/lib/mta/plugins/houserules"
//	  config {
//	    refuse_clients            = ["198.51.100.0/24"]
//	    bad_helo                  = ["localhost", "*.dyn.example"]
//	    blocked_senders           = ["spam@example.org", "@spam.example"]
//	    recipients_per_domain     = 20
//	    refuse_attachments        = ["exe", "scr", "js"]
//	    external_tag              = "[external]"
//	  }
//	}
//
//	pipeline "inbound" {
//	  on "connect" { use = [plugin.rules] }
//	  on "helo"    { use = [plugin.rules] }
//	  on "mail"    { use = [plugin.rules] }
//	  on "rcpt"    { use = [plugin.rules] }
//	  on "message" { use = [plugin.rules] }
//	}
package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block of mta.hcl. What is not written refuses nothing.
type Config struct {
	RefuseClients       []netip.Prefix `mta:"refuse_clients,optional" doc:"networks that may not connect"`
	BadHelo             []string       `mta:"bad_helo,optional" doc:"names that no honest client uses; *.x stands for all names below x"`
	BlockedSenders      []string       `mta:"blocked_senders,optional" doc:"addresses, or @domain for a whole domain"`
	RecipientsPerDomain int            `mta:"recipients_per_domain,optional" doc:"how many recipients of one domain a message may have; 0 is any number"`
	RefuseAttachments   []string       `mta:"refuse_attachments,optional" doc:"file name extensions, without the dot"`
	ExternalTag         string         `mta:"external_tag,optional" doc:"put before the subject of mail from outside"`
}

// Check finds what the types alone can't.
func (c *Config) Check() []schema.Problem {
	var problems []schema.Problem
	for i, s := range c.BlockedSenders {
		if _, err := mail.ParseAddress(sample(s)); err != nil {
			problems = append(problems, schema.Problem{
				Path: []string{"blocked_senders", index(i)}, Summary: "not an address and not @domain", Detail: err.Error(),
			})
		}
	}
	if c.RecipientsPerDomain < 0 {
		problems = append(problems, schema.Problem{Path: []string{"recipients_per_domain"}, Summary: "is negative"})
	}
	if strings.ContainsAny(c.ExternalTag, "\r\n\x00") {
		problems = append(problems, schema.Problem{Path: []string{"external_tag"}, Summary: "holds a line break"})
	}
	return problems
}

// What Rules does. These lines are for the reader; having the methods is enough.
var (
	_ sdk.ConnectFilter = (*Rules)(nil)
	_ sdk.HeloFilter    = (*Rules)(nil)
	_ sdk.MailFilter    = (*Rules)(nil)
	_ sdk.RcptFilter    = (*Rules)(nil)
	_ sdk.MessageFilter = (*Rules)(nil)
)

// Rules is the filter.
type Rules struct {
	cfg     Config
	senders map[string]bool // canonical addresses, and "@domain"
}

func newRules(_ context.Context, c Config, _ sdk.Host) (any, error) {
	r := &Rules{cfg: c, senders: make(map[string]bool)}
	for _, s := range c.BlockedSenders {
		a, err := mail.ParseAddress(sample(s))
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(s, "@") {
			r.senders["@"+a.Domain()] = true
		} else {
			r.senders[strings.ToLower(a.String())] = true
		}
	}
	return r, nil
}

// Connect refuses clients by their network.
func (r *Rules) Connect(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	ip := s.Remote.Addr().Unmap()
	for _, p := range r.cfg.RefuseClients {
		if p.Contains(ip) {
			return mail.Reject(554, "5.7.1", "%s is not welcome here", ip), nil
		}
	}
	return mail.Continue(), nil
}

// Helo refuses clients that say an impossible name.
func (r *Rules) Helo(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	if !s.Authenticated() && slices.ContainsFunc(r.cfg.BadHelo, func(p string) bool { return matches(p, s.Helo) }) {
		return mail.Reject(550, "5.7.1", "%q is not your name", s.Helo), nil
	}
	return mail.Continue(), nil
}

// Mail refuses blocked senders.
func (r *Rules) Mail(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	if s.From.IsNull() { // a bounce has no sender to block
		return mail.Continue(), nil
	}
	if r.senders[strings.ToLower(s.From.String())] || r.senders["@"+s.From.Domain()] {
		return mail.Reject(550, "5.7.1", "mail from %s is not taken", s.From), nil
	}
	return mail.Continue(), nil
}

// Rcpt has a message with too many recipients of one domain come in parts: the client tries the rest again later.
func (r *Rules) Rcpt(_ context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error) {
	limit := r.cfg.RecipientsPerDomain
	if limit == 0 || s.Authenticated() {
		return mail.Continue(), nil
	}
	n := 0
	for _, to := range s.To {
		if to.Address.Domain() == rcpt.Address.Domain() {
			n++
		}
	}
	if n >= limit {
		return mail.TempFail(452, "4.5.3", "more than %d recipients at %s", limit, rcpt.Address.Domain()), nil
	}
	return mail.Continue(), nil
}

// Message refuses attachments by their names, and tags the subject of mail from outside.
func (r *Rules) Message(_ context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error) {
	if len(r.cfg.RefuseAttachments) > 0 {
		name, err := findAttachment(m.Content, r.refused)
		if err != nil {
			return mail.Verdict{}, err
		}
		if name != "" {
			return mail.Reject(552, "5.7.0", "attachments such as %q are not taken", name), nil
		}
	}
	return mail.Continue(r.tag(s, m.Header)...), nil
}

func (r *Rules) refused(file string) bool {
	file = strings.ToLower(strings.TrimRight(file, ". "))
	return slices.ContainsFunc(r.cfg.RefuseAttachments, func(ext string) bool {
		return strings.HasSuffix(file, "."+strings.ToLower(strings.TrimPrefix(ext, ".")))
	})
}

// tag returns the edit that puts the tag before the subject.
func (r *Rules) tag(s *mail.Session, h mail.Header) []mail.Edit {
	if r.cfg.ExternalTag == "" || s.Authenticated() {
		return nil
	}
	for _, f := range h {
		if !strings.EqualFold(f.Name, "Subject") {
			continue
		}
		if strings.HasPrefix(f.Text(), r.cfg.ExternalTag) {
			return nil
		}
		old := strings.TrimLeft(string(f.Value), " \t")
		return []mail.Edit{mail.ReplaceHeader{ID: f.ID, Value: " " + r.cfg.ExternalTag + " " + old}}
	}
	return []mail.Edit{mail.AddHeader{Name: "Subject", Value: " " + r.cfg.ExternalTag, Bottom: true}}
}

func plugin() sdk.Plugin[Config] {
	return sdk.Plugin[Config]{
		Name: "houserules", Version: "0.1.0", Doc: "refuses mail by plain rules", New: newRules, Kinds: (*Rules)(nil),
	}
}

func main() { sdk.Serve(plugin()) }
