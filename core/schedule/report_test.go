package schedule

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

func TestNotify(t *testing.T) {
	relayed := delivered
	relayed.Relayed = true
	for _, tt := range []struct {
		name   string
		to     string
		notify mail.Notify
		null   bool
		answer deliver.Outcome
		want   string // Action of the report, or ""
	}{
		{"failure by default", "b@example.net", 0, false, never, "failed"},
		{"never", "b@example.net", mail.NotifyNever, false, never, ""},
		{"only success", "b@example.net", mail.NotifySuccess, false, never, ""},
		{"success not asked", "b@example.com", mail.NotifyFailure, false, delivered, ""},
		{"success in the mailbox", "b@example.com", mail.NotifySuccess, false, delivered, "delivered"},
		{"success by default", "b@example.com", 0, false, delivered, ""},
		{"passed on without DSN", "b@example.net", mail.NotifySuccess, false, delivered, "relayed"},
		{"passed on with DSN", "b@example.net", mail.NotifySuccess, false, relayed, ""},
		{"null sender, success", "b@example.com", mail.NotifySuccess, true, delivered, ""},
		{"null sender, failure", "b@example.net", mail.NotifyNever, true, never, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.net.answer = func(j *deliver.Job, r mail.Recipient) deliver.Outcome {
					if r.Address.String() == tt.to {
						return tt.answer
					}
					return delivered
				}
				m := message(tt.to)
				m.Envelope.To[0].Notify = tt.notify
				if tt.null {
					m.Envelope.From = mail.Address{}
				}
				w.accept(m)
				synctest.Wait()
				reports := w.reports("ann@example.org")
				if n := len(w.net.made()); n != 1+len(reports) {
					t.Errorf("%d attempts", n)
				}
				if tt.want == "" != (len(reports) == 0) {
					t.Fatalf("%d reports", len(reports))
				}
				if tt.want != "" && !strings.Contains(read(t, reports[0].Content), "Action: "+tt.want+"\r\n") {
					t.Errorf("want %s:\n%s", tt.want, read(t, reports[0].Content))
				}
				if w.queue.size() != 0 {
					t.Error("left in the queue")
				}
			})
		})
	}
}

func TestDelayIsToldOnceAndOnlyToWhomItConcerns(t *testing.T) {
	for _, tt := range []struct {
		notify mail.Notify
		null   bool
		want   int
	}{{0, false, 1}, {mail.NotifyDelay, false, 1}, {mail.NotifyFailure, false, 0}, {mail.NotifyNever, false, 0}, {0, true, 0}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
			m := message("bob@example.net")
			m.Envelope.To[0].Notify = tt.notify
			if tt.null {
				m.Envelope.From = mail.Address{}
			}
			id := w.accept(m)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if got := w.seen(event.Bounced); got != tt.want || !w.queue.get(id).Warned {
				t.Errorf("%+v: %d reports, warned %v", tt, got, w.queue.get(id).Warned)
			}
		})
	}
}

func TestDoubleBounce(t *testing.T) {
	for name, tt := range map[string]struct {
		refused    []string
		postmaster string
		attempts   []string
	}{
		"sender refuses":      {[]string{"example.net", "example.org"}, "postmaster@example.com", []string{"bob@example.net", "ann@example.org", "postmaster@example.com"}},
		"postmaster, too":     {[]string{"example.net", "example.org", "example.com"}, "postmaster@example.com", []string{"bob@example.net", "ann@example.org", "postmaster@example.com"}},
		"there is no such":    {[]string{"example.net", "example.org"}, "", []string{"bob@example.net", "ann@example.org"}},
		"sender is told well": {[]string{"example.net"}, "postmaster@example.com", []string{"bob@example.net", "ann@example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *Options) {
					o.Postmaster = mail.Address{}
					if tt.postmaster != "" {
						o.Postmaster = mail.MustParseAddress(tt.postmaster)
					} else {
						o.Bounce = func(_ context.Context, r *Report) (*queue.Message, error) {
							return r.Write(r.Failure("mx1.example.com", mail.Address{}), mail.Notice{})
						}
					}
				})
				refuse := map[string]deliver.Outcome{}
				for _, d := range tt.refused {
					refuse[d] = never
				}
				w.net.answer = byDomain(refuse)
				w.accept(message("bob@example.net"))
				time.Sleep(30 * 24 * time.Hour)
				synctest.Wait()
				var got []string
				for i, a := range w.net.made() {
					got = append(got, a.job.Envelope.To[0].Address.String())
					if i > 0 && !a.job.Envelope.From.IsNull() {
						t.Errorf("report %d has a sender", i)
					}
				}
				if !slices.Equal(got, tt.attempts) || w.queue.size() != 0 {
					t.Errorf("attempts at %v, want %v; %d left", got, tt.attempts, w.queue.size())
				}
				told := len(tt.refused) == 3 || tt.postmaster == ""
				if (w.seen(event.Warning) == 1) != told {
					t.Errorf("%d warnings", w.seen(event.Warning))
				}
			})
		})
	}
}

func TestReportFails(t *testing.T) {
	for _, outcome := range []deliver.Outcome{never, later} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			broken := true
			w := newWorld(t, func(o *Options) {
				o.Bounce = func(_ context.Context, r *Report) (*queue.Message, error) {
					mu.Lock()
					defer mu.Unlock()
					if broken {
						return nil, errReport
					}
					return r.Write(r.Failure("mx1.example.com", mail.Address{}), mail.Notice{})
				}
			})
			w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": outcome})
			id := w.accept(message("bob@example.net", "carl@ok.example"))
			time.Sleep(6 * 24 * time.Hour)
			synctest.Wait()
			r := w.queue.get(id)
			if r == nil || r.Recipients[0].State != queue.Pending || r.Recipients[1].State != queue.Delivered {
				t.Fatalf("a failure that nobody was told of: %+v", r)
			}
			mu.Lock()
			broken = false
			mu.Unlock()
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(w.reports("ann@example.org")) != 1 || w.queue.size() != 0 || len(w.net.to("carl@ok.example")) != 1 {
				t.Errorf("%d reports, %d left", len(w.reports("ann@example.org")), w.queue.size())
			}
		})
	}
}

func TestNotifierSuppresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen Report
		w := newWorld(t, func(o *Options) {
			o.Bounce = func(_ context.Context, r *Report) (*queue.Message, error) { seen = *r; return nil, nil }
		})
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": never})
		w.accept(message("a@ok.example", "bob@example.net"))
		synctest.Wait()
		if w.queue.size() != 0 || seen.Kind != mail.FailurePermanent || !slices.Equal(seen.Recipients, []int{1}) {
			t.Errorf("%d left, asked %+v", w.queue.size(), seen)
		}
		f := seen.Failure("mx1.example.com", mail.Address{})
		if f.From.String() != "ann@example.org" || len(f.Recipients) != 1 || f.Recipients[0].Host != "mx.example.net" ||
			!strings.Contains(string(f.Header), "Subject: Lunch") || f.Expires.Sub(f.Arrived) != 5*24*time.Hour {
			t.Errorf("%+v", f)
		}
	})
}

func TestReportWithoutRecipientIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Bounce = func(context.Context, *Report) (*queue.Message, error) { return &queue.Message{}, nil }
		})
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": never})
		id := w.accept(message("bob@example.net"))
		synctest.Wait()
		if r := w.queue.get(id); r == nil || r.Recipients[0].State != queue.Pending {
			t.Errorf("%+v", r)
		}
	})
}

func TestReportTellsOfItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Bounce = func(_ context.Context, r *Report) (*queue.Message, error) {
				m, err := r.Write(r.Failure("mx1.example.com", mail.Address{}), mail.Notice{})
				m.Envelope.From = mail.MustParseAddress("evil@example.com") // a notifier can't make a report that may bounce
				m.Meta = map[string]string{"parent": "lie", "language": "ko"}
				return m, err
			}
		})
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": never, "example.org": later})
		id := w.accept(message("bob@example.net"))
		synctest.Wait()
		r := w.queue.get(id + 1)
		if r == nil || !r.Envelope.From.IsNull() || r.Meta["parent"] != id.String() || r.Meta["language"] != "ko" || r.Meta["postmaster"] != "" {
			t.Errorf("%+v", r)
		}
	})
}
