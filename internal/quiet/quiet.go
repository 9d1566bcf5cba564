// Package quiet keeps a log readable while something goes wrong thousands of
// times a second: of a warning that repeats it passes the first few of each
// interval and says how many it left out.
//
//	log := slog.New(quiet.New(slog.NewTextHandler(os.Stderr, nil)))
//
// A repetition is a record of the same level and message about the same things:
// the attributes backend, model, feed, part, service, uuid, path, field and
// warning. Other attributes, such as an error's text or a request's id, may differ. Records below
// warnings pass as they are: the line of a paid request is not a repetition.
package quiet

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// Burst is how many repetitions pass in each Interval.
	Burst = 3
	// Interval is how often it is said how many were left out.
	Interval = 10 * time.Second
	// maxKeys bounds what is remembered; beyond it, everything new passes.
	maxKeys = 4096
)

// about are the attributes that tell repetitions apart.
var about = map[string]bool{"backend": true, "model": true, "feed": true, "part": true, "service": true, "uuid": true,
	"path": true, "field": true, "warning": true}

// Handler passes records on to another handler. It is safe for concurrent use.
type Handler struct {
	next   slog.Handler
	shared *shared
	key    string // of the attributes that a logger has
	group  bool   // attributes of records are in a group, and tell nothing apart
}

var _ slog.Handler = (*Handler)(nil)

// shared is what all handlers made from one have in common.
type shared struct {
	mu   sync.Mutex
	seen map[string]*repeats
}

// repeats is one message in the interval that is running.
type repeats struct {
	passed, left int
}

// New limits what goes to next. A handler that does so already is returned as it
// is.
func New(next slog.Handler) slog.Handler {
	if h, ok := next.(*Handler); ok {
		return h
	}
	return &Handler{next: next, shared: &shared{seen: map[string]*repeats{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.next = h.next.WithAttrs(attrs)
	if !h.group {
		var key strings.Builder
		key.WriteString(h.key)
		for _, a := range attrs {
			addKey(&key, a)
		}
		own.key = key.String()
	}
	return &own
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	own := *h
	own.next, own.group = h.next.WithGroup(name), true
	return &own
}

func addKey(key *strings.Builder, a slog.Attr) {
	if about[a.Key] {
		key.WriteString("\x00" + a.Key + "=" + a.Value.String())
	}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	var key strings.Builder
	key.WriteString(r.Level.String() + "\x00" + r.Message + h.key)
	if !h.group {
		r.Attrs(func(a slog.Attr) bool {
			addKey(&key, a)
			return true
		})
	}
	if !h.shared.pass(key.String(), func(left int) { h.summary(r, left) }) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// pass says whether a record may be written. After an interval in which some may
// not, say is called with their number.
func (s *shared) pass(key string, say func(left int)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.seen[key]
	switch {
	case one == nil && len(s.seen) >= maxKeys:
		return true
	case one == nil:
		one = new(repeats)
		s.seen[key] = one
		time.AfterFunc(Interval, func() { s.over(key, one, say) })
	case one.passed >= Burst:
		one.left++
		return false
	}
	one.passed++
	return true
}

// over ends an interval. While something was left out the next one begins, so
// that what goes on is said once in each.
func (s *shared) over(key string, one *repeats, say func(left int)) {
	s.mu.Lock()
	left := one.left
	if left == 0 {
		delete(s.seen, key)
	} else {
		one.left, one.passed = 0, Burst
		time.AfterFunc(Interval, func() { s.over(key, one, say) })
	}
	s.mu.Unlock()
	if left > 0 {
		say(left)
	}
}

// summary writes what the first record of the interval said, and how many like it
// were not written.
func (h *Handler) summary(first slog.Record, left int) {
	r := slog.NewRecord(time.Now(), first.Level, first.Message, first.PC)
	first.Attrs(func(a slog.Attr) bool {
		if about[a.Key] {
			r.AddAttrs(a)
		}
		return true
	})
	r.AddAttrs(slog.Int("left_out", left), slog.String("within", Interval.String()))
	_ = h.next.Handle(context.Background(), r) // nobody could be told
}
