package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/metering"
)

// recorder writes down what happens, in memory for the checker and as lines of
// JSON for people. Safe for concurrent use.
type recorder struct {
	began time.Time

	mu      sync.Mutex
	file    *os.File
	out     *bufio.Writer
	lines   *json.Encoder
	ops     []*history.Op
	holds   map[metering.HoldID]string // what the history calls them
	spans   map[*history.Span]struct{} // that have not ended
	history history.History
}

// event is one line of a history's file.
type event struct {
	At    int64       `json:"at_us"`
	Event string      `json:"event"` // invoke, complete, or what happened to the system
	Op    *history.Op `json:"op,omitempty"`
	What  string      `json:"what,omitempty"`
	Extra any         `json:"extra,omitempty"`
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	r := &recorder{began: time.Now(), file: f, out: bufio.NewWriter(f), spans: map[*history.Span]struct{}{},
		holds: map[metering.HoldID]string{}}
	r.lines = json.NewEncoder(r.out)
	return r, nil
}

// now is the schedule's time in µs. It begins at 1, as 0 means unset.
func (r *recorder) now() int64 { return time.Since(r.began).Microseconds() + 1 }

func (r *recorder) line(e event) {
	e.At = r.now()
	_ = r.lines.Encode(e) // a disk that is full ends the sitting elsewhere
}

// begin notes an invocation.
func (r *recorder) begin(op *history.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = len(r.ops) + 1
	op.Start = r.now()
	op.Status = history.Unknown
	r.ops = append(r.ops, op)
	if op.Kind == history.Reserve {
		r.holds[holdID(op.Hold)] = op.Hold
	}
	r.line(event{Event: "invoke", Op: op})
}

// end notes what the client was told.
func (r *recorder) end(op *history.Op, a reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.End, op.Status, op.Reason, op.Text, op.Answer = r.now(), a.Status, a.Reason, a.Text, a.Answer
	r.line(event{Event: "complete", Op: op})
}

// note writes a line about the system.
func (r *recorder) note(what string, extra any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(event{Event: "system", What: what, Extra: extra})
}

// span notes that something begins to be wrong; the function returned ends it.
func (r *recorder) span(who, what string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &history.Span{Who: who, What: what, From: r.now()}
	r.spans[s] = struct{}{}
	r.line(event{Event: "begin", What: who + " " + what})
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, open := r.spans[s]; !open {
			return
		}
		delete(r.spans, s)
		s.To = r.now()
		r.history.Spans = append(r.history.Spans, *s)
		r.line(event{Event: "end", What: who + " " + what})
	}
}

// past notes a span that has just ended.
func (r *recorder) past(who, what string, lasted int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.history.Spans = append(r.history.Spans, history.Span{Who: who, What: what, From: now - lasted, To: now})
	r.line(event{Event: "span", What: who + " " + what, Extra: lasted})
}

// with changes the history under the lock.
func (r *recorder) with(fn func(*history.History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(&r.history)
}

// forever is the end of a span that never ends, such as a process's death.
const forever = int64(1) << 61

// close ends all spans and returns the history.
func (r *recorder) close() (*history.History, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.spans {
		s.To = forever
		r.history.Spans = append(r.history.Spans, *s)
	}
	clear(r.spans)
	for _, op := range r.ops {
		if op.End == 0 {
			op.End = r.now()
			op.Reason = history.Late
		}
		r.history.Ops = append(r.history.Ops, *op)
	}
	r.lines.Encode(event{Event: "history", Extra: &r.history})
	err := r.out.Flush()
	if e := r.file.Close(); err == nil {
		err = e
	}
	return &r.history, err
}
