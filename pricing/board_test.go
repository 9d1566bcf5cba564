package pricing_test

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
)

func TestQuoteHoldsTheBoundAtThePriceInForce(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	e := pricing.Fixed("m", pricing.Rates{pricing.InputTokens: 1_000_000, pricing.CachedInputTokens: 2_000_000, pricing.OutputTokens: 3_000_000, pricing.Calls: 5}, at)
	e.ID = 9
	q, err := e.Quote(pricing.Units{pricing.InputTokens: 10, pricing.OutputTokens: 4, pricing.Calls: 1}, at.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if q.Bound != 37 || q.Model != "m" || q.Epoch != 9 || q.Rates != e.Rates || !q.ExpiresAt.Equal(at.Add(time.Minute)) {
		t.Errorf("quote %+v", q)
	}
	if _, err := e.Quote(pricing.Units{pricing.OutputTokens: -1}, at); !errors.Is(err, pricing.ErrUsage) {
		t.Errorf("error %v, want ErrUsage", err)
	}
	if e.BoundBy != pricing.BoundFixed || e.Multiplier != 1 {
		t.Errorf("fixed epoch %+v", e)
	}
}

func TestTheWireNamesOfAnEpoch(t *testing.T) {
	e := pricing.Fixed("m", pricing.Rates{pricing.Calls: 5}, time.Unix(0, 0).UTC())
	e.ID = 3
	got, err := json.Marshal(e)
	want := `{"price_epoch":3,"model":"m","rates":{"call_msat":5},"multiplier":1,"signal":0,"bound_by":"fixed","published_at":"1970-01-01T00:00:00Z"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestBoardKeepsTheNewestPriceOfEachModel(t *testing.T) {
	var b pricing.Board
	if _, ok := b.Current("a"); ok || len(b.Models()) != 0 {
		t.Error("an empty board has a price")
	}
	for _, e := range []pricing.Epoch{{ID: 2, Model: "b"}, {ID: 1, Model: "a"}, {ID: 4, Model: "a"}} {
		if !b.Set(e) {
			t.Errorf("%+v did not take effect", e)
		}
	}
	if b.Set(pricing.Epoch{ID: 3, Model: "a"}) {
		t.Error("an older epoch took effect")
	}
	if !b.Set(pricing.Epoch{ID: 4, Model: "a", Signal: 0.5}) {
		t.Error("the same epoch read again did not take effect")
	}
	if e, ok := b.Current("a"); !ok || e.ID != 4 || e.Signal != 0.5 {
		t.Errorf("current %+v %v", e, ok)
	}
	if got := b.Models(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("models %v", got)
	}
}

func TestBoardUnderConcurrentUse(t *testing.T) {
	var b pricing.Board
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				b.Set(pricing.Epoch{ID: int64(i), Model: string(rune('a' + w))})
			}
		})
		wg.Go(func() {
			last := int64(-1)
			for range 200 {
				if e, ok := b.Current(string(rune('a' + w))); ok {
					if e.ID < last {
						t.Errorf("price went back from epoch %d to %d", last, e.ID)
					}
					last = e.ID
				}
				b.Models()
			}
		})
	}
	wg.Wait()
	for _, m := range b.Models() {
		if e, _ := b.Current(m); e.ID != 199 {
			t.Errorf("%s ended at epoch %d", m, e.ID)
		}
	}
}

func TestBoardReadsAllocateNothing(t *testing.T) {
	var b pricing.Board
	b.Set(pricing.Epoch{ID: 1, Model: "m"})
	if n := testing.AllocsPerRun(100, func() { b.Current("m") }); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}
