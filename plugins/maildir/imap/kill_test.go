package imap

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// serveIn begins the folder that the process of TestKill serves.
const serveIn = "MTA_IMAP_SERVE"

// place is where a message is. Nothing else may ever be there.
type place struct {
	folder   string
	validity uint32
	uid      imap.UID
}

// record is what was answered to clients of a server that is killed.
type record struct {
	mu    sync.Mutex
	is    map[place]string // what a message is, from an answer or because it was read
	kept  map[place]bool   // answered that it is there
	gone  map[place]bool   // answered that it is no longer there
	limbo map[place]bool   // to be removed, and not answered
	ended map[string]bool  // answered that it is removed, for good
	moved map[string]bool  // asked to be moved: it is in one of the folders, or in both
	n     int
}

// serveUntilKilled is the server's process.
func serveUntilKilled(t *testing.T) {
	r := &rig{t: t, dir: os.Getenv(serveIn)}
	r.start(nil)
	fmt.Println("address", r.addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serveKillable starts a process that serves dir.
func serveKillable(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), serveIn+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		in.Close()
	})
	t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if a, ok := strings.CutPrefix(lines.Text(), "address "); ok {
			return a, kill
		}
	}
	t.Fatal("the server's process does not serve")
	return "", nil
}

// client works until its connection breaks, and notes what is answered. It calls began after its first turn.
func (rec *record) client(addr string, chance *rand.Rand, began func()) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := imapclient.New(conn, nil)
	defer c.Close()
	if c.Login("ann", "right").Wait() != nil {
		return
	}
	data, err := c.Select("INBOX", nil).Wait()
	for err == nil {
		if err = rec.turn(c, data.UIDValidity, chance); err == nil {
			began()
		}
	}
}

// turn appends a message, then copies, moves or removes it, or leaves it.
func (rec *record) turn(c *imapclient.Client, validity uint32, chance *rand.Rand) error {
	rec.mu.Lock()
	rec.n++
	content := fmt.Sprintf("Subject: %d\r\n\r\n%d\r\n", rec.n, rec.n)
	rec.mu.Unlock()
	cmd := c.Append("INBOX", int64(len(content)), nil)
	if _, err := io.WriteString(cmd, content); err != nil {
		return err
	}
	if err := cmd.Close(); err != nil {
		return err
	}
	data, err := cmd.Wait()
	if err != nil {
		return err
	}
	here := place{"INBOX", validity, data.UID}
	rec.note(rec.kept, here, content)
	set := imap.UIDSetNum(here.uid)
	switch chance.IntN(4) {
	case 0:
		data, err := c.Copy(set, "Archive").Wait()
		if err == nil {
			rec.arrived(data.UIDValidity, data.DestUIDs, content)
		}
		return err
	case 1:
		rec.note(rec.limbo, here, content)
		rec.mu.Lock()
		rec.moved[content] = true
		rec.mu.Unlock()
		data, err := c.Move(set, "Archive").Wait()
		if err == nil {
			rec.arrived(data.UIDValidity, data.DestUIDs.(imap.UIDSet), content)
			rec.note(rec.gone, here, content)
		}
		return err
	case 2:
		rec.note(rec.limbo, here, content)
		if err := c.Store(set, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
			return err
		}
		if err := c.UIDExpunge(set).Close(); err != nil {
			return err
		}
		rec.note(rec.gone, here, content)
		rec.mu.Lock()
		rec.ended[content] = true
		rec.mu.Unlock()
	}
	return nil
}

func (rec *record) arrived(validity uint32, uids imap.UIDSet, content string) {
	list, _ := uids.Nums()
	for _, uid := range list {
		rec.note(rec.kept, place{"Archive", validity, uid}, content)
	}
}

func (rec *record) note(in map[place]bool, p place, content string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	in[p], rec.is[p] = true, content
}

// judge holds a folder against what was answered, and notes what it has found.
func (rec *record) judge(t *testing.T, c *imapclient.Client, folder string, found map[string]bool) {
	t.Helper()
	data, err := c.Select(folder, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	there := map[place]bool{}
	if data.NumMessages > 0 {
		msgs, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			p, content := place{folder, data.UIDValidity, m.UID}, string(m.BodySection[0].Bytes)
			if was, known := rec.is[p]; known && was != content {
				t.Errorf("%v was %q and is %q", p, was, content)
			}
			if rec.gone[p] {
				t.Errorf("%v has come back", p)
			}
			if p.uid >= data.UIDNext {
				t.Errorf("%v, and the next UID is %d", p, data.UIDNext)
			}
			rec.is[p], there[p], found[content] = content, true, true
		}
	}
	for p := range rec.kept {
		if p.folder == folder && !there[p] && !rec.limbo[p] {
			t.Errorf("%v is lost", p)
		}
	}
}

// TestKill kills a process that serves IMAP again and again: what was answered holds. MTA_KILL_TRIALS makes it longer, and
// MTA_KILL_SEED repeats a run.
func TestKill(t *testing.T) {
	if os.Getenv(serveIn) != "" {
		serveUntilKilled(t)
		return
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	trials, seed := number("MTA_KILL_TRIALS", 4), number("MTA_KILL_SEED", int(time.Now().UnixNano()%1_000_000))
	t.Logf("MTA_KILL_TRIALS=%d MTA_KILL_SEED=%d", trials, seed)
	chance := rand.New(rand.NewPCG(uint64(seed), 0))
	dir := t.TempDir()
	rec := &record{is: map[place]string{}, kept: map[place]bool{}, gone: map[place]bool{}, limbo: map[place]bool{}, moved: map[string]bool{}, ended: map[string]bool{}}
	for range trials {
		addr, kill := serveKillable(t, dir)
		var wg sync.WaitGroup
		after := time.Duration(chance.IntN(400_000)) * time.Microsecond
		began := sync.OnceFunc(func() { time.AfterFunc(after, kill) })
		for range 3 {
			own := rand.New(rand.NewPCG(chance.Uint64(), 0))
			wg.Go(func() { rec.client(addr, own, began) })
		}
		wg.Wait()
		kill()
		addr, kill = serveKillable(t, dir)
		r, found := &rig{t: t, addr: addr}, map[string]bool{}
		c := r.login("ann", nil)
		for _, folder := range []string{"INBOX", "Archive"} {
			rec.judge(t, c, folder, found)
		}
		for content := range rec.ended {
			if found[content] {
				t.Errorf("%q was removed, and has come back", content)
			}
		}
		for content := range rec.moved {
			if !found[content] {
				t.Errorf("%q was to be moved, and is lost", content)
			}
		}
		c.Close()
		kill()
	}
	if len(rec.kept) < trials {
		t.Errorf("%d kept: nothing has been tried", len(rec.kept))
	}
	t.Logf("%d answered to be there, %d to be gone", len(rec.kept), len(rec.gone))
}
