//go:build linux

package meter

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Meter measures from Start to Stop.
type Meter struct {
	group  *Group
	device string // major:minor of the disk
	syncs  *syncCounter
	first  reading
	quit   chan struct{}
	peaks  chan Memory
}

// Usage is what was measured.
type Usage struct {
	Time    time.Duration // from Start to Stop
	Peer    time.Duration // CPU of the server
	Self    time.Duration // CPU of this program: generator and sink
	Other   time.Duration // CPU of everything else, the kernel's own threads too: the noise
	Stolen  time.Duration // CPU that the host gave to somebody else
	Peak    Memory        // the largest of each figure
	Written int64         // bytes, by the server's processes
	Disk    int64         // bytes, to the disk, by everybody
	Flushes int64         // of the disk, by everybody
	Syncs   int64         // that the server asked for; -1: they can't be counted here
}

// sampling is how often memory is looked at.
const sampling = 100 * time.Millisecond

// Start begins to measure. dir is a folder on the disk that the server writes to.
func Start(g *Group, dir string) *Meter {
	m := &Meter{group: g, device: deviceOf(dir), quit: make(chan struct{}), peaks: make(chan Memory, 1)}
	m.syncs = countSyncs(g, dir)
	m.first = m.read()
	go m.sample()
	return m
}

func (m *Meter) sample() {
	var peak Memory
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for {
		now := m.group.Memory()
		peak = Memory{max(peak.RSS, now.RSS), max(peak.Anon, now.Anon), max(peak.Processes, now.Processes)}
		select {
		case <-m.quit:
			m.peaks <- peak
			return
		case <-tick.C:
		}
	}
}

// Stop ends the measurement. The server must still be running.
func (m *Meter) Stop() Usage {
	last := m.read()
	syncs := m.syncs.stop()
	close(m.quit)
	u := Usage{
		Time:    last.when.Sub(m.first.when),
		Peer:    last.peer - m.first.peer,
		Self:    last.self - m.first.self,
		Stolen:  last.stolen - m.first.stolen,
		Peak:    <-m.peaks,
		Written: last.written - m.first.written,
		Disk:    last.disk - m.first.disk,
		Flushes: last.flushes - m.first.flushes,
		Syncs:   syncs,
	}
	u.Other = max(0, last.busy-m.first.busy-u.Peer-u.Self)
	return u
}

// reading is the state of all counters at one time.
type reading struct {
	when                     time.Time
	peer, self, busy, stolen time.Duration
	written, disk, flushes   int64
}

func (m *Meter) read() reading {
	r := reading{when: time.Now(), peer: m.group.CPU(), self: ownCPU(), written: m.group.Written()}
	r.busy, r.stolen = machineCPU()
	r.disk, r.flushes = diskWrites(m.device)
	return r
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineCPU reads /proc/stat: user nice system idle iowait irq softirq steal, in hundredths of a second (proc_stat(5)).
func machineCPU() (busy, stolen time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	words := strings.Fields(line)
	const idle, iowait, steal, tick = 4, 5, 8, 10 * time.Millisecond
	for i := 1; i < len(words) && i <= steal; i++ {
		n, err := strconv.ParseInt(words[i], 10, 64)
		switch {
		case err != nil || i == idle || i == iowait:
		case i == steal:
			stolen = time.Duration(n) * tick
		default:
			busy += time.Duration(n) * tick
		}
	}
	return busy, stolen
}

// diskWrites reads /proc/diskstats: bytes written and flushes of a device (Documentation/admin-guide/iostats.rst).
func diskWrites(device string) (bytes, flushes int64) {
	text, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0, 0
	}
	const sectorsWritten, flushRequests, sector = 9, 18, 512
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) <= flushRequests || words[0]+":"+words[1] != device {
			continue
		}
		sectors, _ := strconv.ParseInt(words[sectorsWritten], 10, 64)
		flushes, _ := strconv.ParseInt(words[flushRequests], 10, 64)
		return sectors * sector, flushes
	}
	return 0, 0
}

func deviceOf(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ""
	}
	return strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
}
