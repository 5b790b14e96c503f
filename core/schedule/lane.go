package schedule

// lane is what is ready at a site and as urgent: jobs, whose messages are in memory, and entries, whose messages are read when a
// worker comes to them. Both lists are linked through what they hold, so that a long one costs nothing more.
type lane struct {
	jobs    *job
	lastJob *job
	due     uint32
	lastDue uint32
}

func (l *lane) hasWork() bool { return l.jobs != nil || l.due != 0 }

// lanes is how many priorities are told apart (RFC 6710 has 19, and is content with fewer): above, at and below 0.
const lanes = 3

func laneOf(priority int8) uint8 {
	switch {
	case priority > 0:
		return 0
	case priority == 0:
		return 1
	}
	return 2
}

func (st *site) hasWork() bool { return st.readyJobs+st.readyDue > 0 }

// lowTurn is how often the least urgent comes first, so that it gets on beside an endless stream of what is more urgent.
const lowTurn = 8

// inTurn returns the lane whose turn it is, and whether it is also that of what is in memory there; there is work.
func (st *site) inTurn() (from *lane, inMemory bool) {
	from = st.lane()
	return from, from.jobs != nil && (!st.turn || from.due == 0)
}

// lane returns the lane whose turn it is; there is work.
func (st *site) lane() *lane {
	if (st.turns+1)%lowTurn == 0 {
		for i := lanes - 1; i > 0; i-- {
			if st.lanes[i].hasWork() {
				return &st.lanes[i]
			}
		}
	}
	i := 0
	for !st.lanes[i].hasWork() {
		i++
	}
	return &st.lanes[i]
}

func (st *site) pushJob(j *job) {
	l := &st.lanes[laneOf(j.lease.rec.Envelope.Priority)]
	j.next = nil
	if l.lastJob == nil {
		l.jobs = j
	} else {
		l.lastJob.next = j
	}
	l.lastJob = j
	st.readyJobs++
}

func (st *site) popJob(l *lane) *job {
	j := l.jobs
	if l.jobs = j.next; l.jobs == nil {
		l.lastJob = nil
	}
	j.next = nil
	st.readyJobs--
	return j
}

func (s *Schedule) pushDue(st *site, at uint32) {
	e := s.table.at(at)
	e.link = 0
	l := &st.lanes[e.lane]
	if l.lastDue == 0 {
		l.due = at
	} else {
		s.table.at(l.lastDue).link = at
	}
	l.lastDue = at
	st.readyDue++
}

func (s *Schedule) popDue(st *site, l *lane) uint32 {
	at := l.due
	e := s.table.at(at)
	if l.due = e.link; l.due == 0 {
		l.lastDue = 0
	}
	e.link = 0
	st.readyDue--
	return at
}
