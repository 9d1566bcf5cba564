// Package quiet keeps a log readable while the same warning is logged thousands of times a second. In
// each interval it passes the first few records of a repeated warning, and then logs how many it left
// out.
//
//	log := slog.New(quiet.New(slog.NewTextHandler(os.Stderr, nil)))
//
// A record repeats another record if both have the same level, the same message, and the same values of
// the attributes backend, model, feed, part, service, uuid, path, field and warning. Other attributes,
// such as an error's text or a request's id, may differ. Records below the level of a warning always
// pass, because the line of a paid request is not a repetition.
package quiet

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// Burst is how many records of one kind pass in an Interval.
	Burst = 3
	// Interval is how often the handler logs how many records it left out.
	Interval = 10 * time.Second
	// maxKeys bounds how many kinds of records are remembered. Beyond it, records of a new kind all
	// pass.
	maxKeys = 4096
)

// about are the attributes that distinguish one kind of record from another.
var about = map[string]bool{"backend": true, "model": true, "feed": true, "part": true, "service": true, "uuid": true,
	"path": true, "field": true, "warning": true}

// Handler passes records on to another handler. It is safe for concurrent use.
type Handler struct {
	next   slog.Handler
	shared *shared
	key    string // made of the attributes that a logger has
	group  bool   // records' attributes are in a group, so they do not distinguish records
}

var _ slog.Handler = (*Handler)(nil)

// shared is what all handlers that were made from one handler have in common.
type shared struct {
	mu   sync.Mutex
	seen map[string]*repeats
}

// repeats counts one kind of record in the current interval.
type repeats struct {
	passed, left int
}

// New returns a handler that limits the records passed to next. If next is such a handler already, New
// returns next.
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

// pass says whether a record may be written. At the end of an interval in which records were left out,
// pass's timer calls say with their number.
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

// over ends an interval. If records were left out in it, the next interval begins at once, so that a
// lasting problem is logged once per interval.
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

// summary writes the message of the first record of the interval, and how many records of its kind were
// left out.
func (h *Handler) summary(first slog.Record, left int) {
	r := slog.NewRecord(time.Now(), first.Level, first.Message, first.PC)
	first.Attrs(func(a slog.Attr) bool {
		if about[a.Key] {
			r.AddAttrs(a)
		}
		return true
	})
	r.AddAttrs(slog.Int("left_out", left), slog.String("within", Interval.String()))
	_ = h.next.Handle(context.Background(), r) // there is nobody to whom the error could be reported
}
