// Package engine builds the whole server from a configuration: New, Start, Reload, Stop.
//
// Start opens the queue first and the listeners last, so that nobody is answered before their mail can be kept; Stop goes
// the other way. What fails while starting is told in words and undone. A reload builds the new generation beside the old
// one and swaps them only when all of it stands; otherwise the old one stays in force. The first storage error stops
// everything: what was acknowledged is on disk, and a restart goes on from there.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/kv"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/schedule"
	"github.com/pabal-mta/mta/core/smtpd"
)

// drainTime is how long an old generation may take to end what it has begun.
const drainTime = time.Minute

// memoryBudget bounds the bytes of message bodies that are held while they are received.
const memoryBudget = 256 << 20

// Options are what the engine is made of beside its configuration.
type Options struct {
	ConfigPath string
	// Load reads the configuration; New calls it for the first time and Reload again. Its error holds every diagnostic.
	Load    func(ctx context.Context) (*config.Config, error)
	Logger  *slog.Logger
	Version string
	// Builtin is the command that runs a built-in plugin: our own program and its first arguments, to which the
	// plugin's name is added.
	Builtin []string
	// Dev has the plugins that are started by hand.
	Dev Dev
	// MailSettings are what mail programs are told about a configuration; nil: nothing.
	MailSettings func(*config.Config) admin.MailSettings
}

// Engine is a server.
type Engine struct {
	options Options
	events  *event.Bus
	started time.Time
	loaded  atomic.Pointer[time.Time]
	current atomic.Pointer[generation]

	queue     *queue.Queue
	schedule  *schedule.Schedule
	kv        *kv.Store
	intake    intake
	pressure  *pressure
	suspended *suspensions
	buckets   buckets
	suspects  suspects
	observed  *observers
	memory    *smtpd.Budget
	metrics   *admin.Metrics
	open      atomic.Pointer[[]*listening] // what is being served, for the status; nil until the start is over

	mu        sync.Mutex // held by what changes the server: Start, Reload, Stop
	listening map[string]*listening
	servers   []*http.Server // of the admin room

	stop  chan struct{} // closed when a stop is wanted
	once  sync.Once
	fatal error // the storage error that stopped us
}

// New makes an engine; nothing runs yet.
func New(o Options) *Engine {
	e := &Engine{options: o, events: new(event.Bus), listening: map[string]*listening{}, stop: make(chan struct{})}
	e.memory = smtpd.NewBudget(memoryBudget)
	e.metrics = admin.NewMetrics(e.Status)
	e.events.Listen(e.metrics.Observe)
	e.events.Listen(logEvents(o.Logger))
	e.observed = &observers{tell: e.tellObserver}
	e.events.Listen(e.observed.put)
	return e
}

// Events lets a caller listen to what happens.
func (e *Engine) Events() *event.Bus { return e.events }

// Start opens everything and returns when mail is taken. When it fails nothing is left open.
func (e *Engine) Start(ctx context.Context) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	cfg, err := e.options.Load(ctx)
	if err != nil {
		return err
	}
	e.started = time.Now()
	defer func() {
		if err != nil {
			e.close(ctx)
		}
	}()
	if err := e.openQueue(cfg); err != nil {
		return err
	}
	g, err := e.newGeneration(ctx, cfg)
	if err != nil {
		return err
	}
	e.adopt(g)
	if err := e.openSchedule(ctx, cfg); err != nil {
		return err
	}
	if err := e.openAdmin(cfg); err != nil {
		return err
	}
	if err := e.openListeners(cfg); err != nil {
		return err
	}
	e.events.Emit(event.Event{Name: event.ServerStarted, Host: cfg.Hostname, Took: time.Since(e.started)})
	notifySystemd("READY=1")
	return nil
}

// adopt makes a generation the current one.
func (e *Engine) adopt(g *generation) {
	now := time.Now()
	e.loaded.Store(&now)
	e.current.Store(g)
	e.observed.use(g.cfg.Observe)
}

// QueueDir returns where a configuration keeps its queue.
func QueueDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "queue") }

// dirs are the directories under data_dir: for the plugins' sockets, and for large bodies while they are received.
func (e *Engine) dir(cfg *config.Config, name string) (string, error) {
	dir := filepath.Join(cfg.DataDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data_dir: %w", err)
	}
	return dir, nil
}

func (e *Engine) openQueue(cfg *config.Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	q, err := queue.Open(QueueDir(cfg), queue.Options{MinFree: int64(cfg.Queue.MinFree), Logger: e.options.Logger, Fatal: e.storageFailed})
	if err != nil {
		return err
	}
	e.queue = q
	e.kv = kv.New(kv.Options{Dir: filepath.Join(cfg.DataDir, "kv"), Full: func() bool { return q.Stats().Full }, Logger: e.options.Logger})
	return nil
}

// storageFailed is fail-stop: after the first storage error nothing that is told to a peer could be trusted.
func (e *Engine) storageFailed(err error) {
	e.events.Emit(event.Event{Name: event.StorageFailed, Err: err, Reason: "the server stops; what was acknowledged is on disk"})
	e.once.Do(func() {
		e.fatal = fmt.Errorf("the queue's storage failed: %w", err)
		close(e.stop)
	})
}

// Stop asks for an orderly stop and returns at once.
func (e *Engine) Stop() { e.once.Do(func() { close(e.stop) }) }

// Wait returns when a stop is wanted: by Stop, by an operator, or because the storage failed, which is the error.
func (e *Engine) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-e.stop:
	}
	return e.fatal
}

// Close ends sessions and attempts, then the plugins, then the queue. When ctx ends, what is still running is cut off:
// messages in it stay in the queue.
func (e *Engine) Close(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	notifySystemd("STOPPING=1")
	e.events.Emit(event.Event{Name: event.ServerStopping})
	e.close(ctx)
}

func (e *Engine) close(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range e.listening {
		wg.Go(func() { l.shutdown(ctx) })
	}
	wg.Wait()
	for _, s := range e.servers {
		closeSoon(ctx, s)
	}
	e.intake.Lock()
	e.intake.stopped = true
	e.intake.Unlock()
	if e.schedule != nil {
		e.warnOn(e.schedule.Stop(ctx), "attempts were cut off; their messages stay in the queue")
	}
	e.observed.use(nil)
	if g := e.current.Load(); g != nil {
		g.retire(ctx)
	}
	if e.kv != nil {
		e.warnOn(e.kv.Close(), "the store of the plugins was not closed well")
	}
	if e.queue != nil {
		if err := e.queue.Close(); err != nil {
			e.events.Emit(event.Event{Name: event.StorageFailed, Err: err})
		}
	}
}

// Reload reads the configuration again and swaps to it, all or nothing.
func (e *Engine) Reload(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	cfg, err := e.options.Load(ctx)
	if err != nil {
		return err
	}
	old := e.current.Load()
	if err := needsRestart(old.cfg, cfg); err != nil {
		return err
	}
	g, err := e.newGeneration(ctx, cfg)
	if err != nil {
		return err
	}
	swap, err := e.prepareListeners(cfg)
	if err != nil {
		g.retire(ctx)
		return err
	}
	e.adopt(g)
	e.schedule.Configure(scheduleSettings(cfg))
	swap()
	go func() {
		drain, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		old.retire(drain)
	}()
	e.events.Emit(event.Event{Name: event.ConfigReloaded})
	return nil
}

// needsRestart refuses changes that a running server cannot follow.
func needsRestart(old, now *config.Config) error {
	var errs []error
	for _, c := range []struct{ name, old, now string }{
		{"data_dir", old.DataDir, now.DataDir},
		{"admin.socket", old.Admin.Socket, now.Admin.Socket},
		{"admin.listen", old.Admin.Listen, now.Admin.Listen},
		{"queue.min_free", fmt.Sprint(old.Queue.MinFree), fmt.Sprint(now.Queue.MinFree)},
	} {
		if c.old != c.now {
			errs = append(errs, fmt.Errorf("%s was changed from %q to %q: that needs a restart (mta stop, then mta serve)", c.name, c.old, c.now))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) openAdmin(cfg *config.Config) error {
	l, err := admin.ListenSocket(cfg.Admin.Socket)
	if err != nil {
		return err
	}
	e.serve(l, admin.API(e))
	if cfg.Admin.Listen == "" {
		return nil
	}
	if l, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		return fmt.Errorf("admin.listen: %w", inWords(err))
	}
	e.serve(l, admin.Pages(e, e.metrics, e.mailSettings))
	return nil
}

// mailSettings are those of the configuration in force.
func (e *Engine) mailSettings() admin.MailSettings {
	g := e.current.Load()
	if g == nil || e.options.MailSettings == nil {
		return admin.MailSettings{}
	}
	return e.options.MailSettings(g.cfg)
}

// lastAnswers is how long requests to the admin room that are being answered may take when the server stops.
const lastAnswers = time.Second

// closeSoon lets the answers that have begun be finished, such as the one to mta stop.
func closeSoon(ctx context.Context, s *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, lastAnswers)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close() // only readers are cut off
	}
}

func (e *Engine) serve(l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(e.options.Logger.Handler(), slog.LevelDebug)}
	e.servers = append(e.servers, s)
	go func() { _ = s.Serve(l) }() // it ends with Close
}
