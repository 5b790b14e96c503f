package schedule

import (
	"slices"
	"time"
)

// Stats is what the schedule is at.
type Stats struct {
	Waiting   int   // for their time
	Ready     int   // due, for a connection
	Leased    int   // being attempted or recorded
	Held      int   // for the operator
	Active    int   // attempts that are running
	Memory    int64 // bytes of new messages in memory
	Pressure  float64
	Sites     int
	Failing   int         // sites that take no connections
	Suspended int         // sites that an operator has suspended
	Top       []SiteStats // the sites with most messages, and suspended and failing ones before others
}

// SiteStats is what is known of one site.
type SiteStats struct {
	Route     string
	Domain    string // "" where the route is one site
	Messages  int    // that wait for it
	Ready     int    // of these, due
	Active    int    // attempts that are running
	Failures  int    // connections that failed, in a row
	Since     time.Time
	Next      time.Time // no connection before
	LastReply string    // why the last one failed
	Suspended *Suspension
	Ramp      int // connections that it may have so soon after it failed; 0: as many as the limits say
}

// Stats returns the figures, with at most top sites.
func (s *Schedule) Stats(top int) Stats {
	pressure := s.Pressure()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Waiting: s.table.count[waiting], Ready: s.table.count[ready], Leased: s.table.count[leased], Held: s.table.count[held],
		Active: s.active, Memory: s.memory, Pressure: pressure, Sites: len(s.sites.byKey),
	}
	for _, site := range s.sites.byKey {
		if site.trouble != nil {
			st.Failing++
		}
		if site.suspended != nil {
			st.Suspended++
		}
		st.Top = among(st.Top, site, top)
	}
	return st
}

// among puts a site into a list of the top ones, which is sorted.
func among(list []SiteStats, st *site, top int) []SiteStats {
	if st.key == unsorted || top <= 0 {
		return list
	}
	v := SiteStats{
		Route: st.key.route, Domain: st.key.domain, Messages: st.entries, Ready: st.readyJobs + st.readyDue, Active: st.active, Ramp: st.ramp,
		Suspended: st.suspended,
	}
	if st.key == nowhere {
		v.Domain, v.LastReply = "", noRoute.String()
	}
	if t := st.trouble; t != nil {
		v.Failures, v.Since, v.Next, v.LastReply = t.failures, t.since, t.until, t.outcome.Reply.String()
	}
	at, _ := slices.BinarySearchFunc(list, v, before)
	if at >= top {
		return list
	}
	list = slices.Insert(list, at, v)
	return list[:min(len(list), top)]
}

// before sorts failing and suspended sites first, then long ones, then by name.
func before(a, b SiteStats) int {
	if fa, fb := a.stuck(), b.stuck(); fa != fb {
		if fa {
			return -1
		}
		return 1
	}
	if a.Messages != b.Messages {
		return b.Messages - a.Messages
	}
	if a.Route+"/"+a.Domain < b.Route+"/"+b.Domain {
		return -1
	}
	return 1
}

func (s *SiteStats) stuck() bool { return s.Failures > 0 || s.Suspended != nil }
