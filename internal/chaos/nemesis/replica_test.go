package main

import (
	"path/filepath"
	"testing"

	"sluice.example/sluice/internal/chaos/nemesis/history"
)

// TestRecorder: an operation without an answer is unknown, and a span without
// an end goes on for ever.
func TestRecorder(t *testing.T) {
	r, err := newRecorder(filepath.Join(t.TempDir(), "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	heard, unheard := &history.Op{Kind: history.Deposit}, &history.Op{Kind: history.Reserve, Hold: "h1"}
	r.begin(heard)
	r.begin(unheard)
	r.end(heard, reply{Status: history.OK, Answer: history.Answer{Credited: 5}})
	r.span("t1#1", history.Dead)
	r.span("t1", "cut")()
	h, err := r.close()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Ops) != 2 || h.Ops[0].Status != history.OK || h.Ops[0].Answer.Credited != 5 ||
		h.Ops[1].Status != history.Unknown || h.Ops[1].End == 0 {
		t.Errorf("operations: %+v", h.Ops)
	}
	if len(h.Spans) != 2 || h.Spans[0].Who != "t1" || h.Spans[1].To != forever {
		t.Errorf("spans: %+v", h.Spans)
	}
	if name := (&play{record: r}).holdName(holdID("h1")); name != "h1" {
		t.Errorf("the hold is called %s", name)
	}
}

// TestGone: a teller that is not there has done nothing.
func TestGone(t *testing.T) {
	r := &replica{name: "t1"}
	if a := r.ask("t1#1", request{Within: 1000}); a.Status != history.Fail || a.Reason != history.Gone {
		t.Errorf("%+v", a)
	}
}
