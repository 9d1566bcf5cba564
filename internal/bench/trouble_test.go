package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/metering"
)

// TestClients checks that the clients of a replica continue while one account is locked, that the
// client of that account waits, and that the timeline shows both.
func TestClients(t *testing.T) {
	where := pgtest.Start(t)
	if err := prefill(t.Context(), ledgerSize{Store: where, Accounts: 4}); err != nil {
		t.Fatal(err)
	}
	accounts, err := accountsOf(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	p := clientsPlan{Store: where, Marked: 1, Timeline: filepath.Join(t.TempDir(), "timeline")}
	plan, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- runClients(ctx, plan, func(any) error { close(begun); return nil }) }()
	<-begun
	var locked time.Time
	const span = 300 * time.Millisecond
	err = whileLocked(t.Context(), where, accounts[:1], func() error {
		locked = time.Now()
		return pause(t.Context(), span)
	})
	unlocked := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	if err := pause(t.Context(), span); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var line timeline
	b, err := os.ReadFile(p.Timeline)
	if err == nil {
		err = json.Unmarshal(b, &line)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := line.perSecond(line.Marked, locked.Add(slice), unlocked.Add(-span/3)); n != 0 {
		t.Errorf("%f pairs/s of an account that was locked", n)
	}
	for name, group := range map[string][]uint32{"marked": line.Marked, "others": line.Others} {
		if line.perSecond(group, line.Begin, unlocked.Add(span)) == 0 {
			t.Errorf("no pair of the %s accounts", name)
		}
	}
}

func TestWhileLockedMissesAnAccount(t *testing.T) {
	where := pgtest.Start(t)
	if err := prefill(t.Context(), ledgerSize{Store: where, Accounts: 1}); err != nil {
		t.Fatal(err)
	}
	accounts, err := accountsOf(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	other := accounts[0]
	other[0] ^= 1
	err = whileLocked(t.Context(), where, append(accounts, other), func() error { t.Error("went on"); return nil })
	if err == nil {
		t.Error("an account that does not exist was locked")
	}
}

// TestClientAfterRefusals checks that a client asks again after a refusal, and that any other
// failure ends the part.
func TestClientAfterRefusals(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rec, n := newRecorder(), 0
	err := rec.client(ctx, 0, func(context.Context) error {
		switch n++; n {
		case 1:
			return metering.ErrUnavailable
		case 2:
			return metering.ErrBusy
		case 3:
			return nil
		}
		return io.ErrUnexpectedEOF
	})
	line := rec.timeline()
	served := line.perSecond(line.Others, line.Begin, line.Begin.Add(time.Second))
	if !errors.Is(err, io.ErrUnexpectedEOF) || line.Refused != 2 || served != 1 {
		t.Errorf("%v, %d refused, %f served", err, line.Refused, served)
	}
}

// steps returns a timeline. Each element of perSlice is a number of pairs per slice and a number of
// slices.
func steps(begin time.Time, perSlice ...[2]int) timeline {
	t := timeline{Begin: begin}
	for _, s := range perSlice {
		for range s[1] {
			t.Others = append(t.Others, uint32(s[0]))
		}
	}
	return t
}

func TestStopIsComparedWithTheOthers(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	const second = int(time.Second / slice)
	// Replica 1 is stopped one second after the beginning. Replica 0 makes no pairs for 1.25 s
	// after that, and then continues at half its rate. Replica 2 makes no pairs from the stop until
	// half a second before the end of the stop.
	lines := []timeline{
		steps(begin, [2]int{10, second}, [2]int{0, second * 5 / 4}, [2]int{5, 3 * second}),
		steps(begin, [2]int{99, 5 * second}),
		steps(begin, [2]int{10, second}, [2]int{0, second * 7 / 2}, [2]int{20, second / 2}),
	}
	s := stop{Replica: 1, at: begin.Add(time.Second)}
	if err := s.sum(lines); err != nil {
		t.Fatal(err)
	}
	// From 2 s to 4 s: replica 0 at 5, and a quarter of the time replica 2 at 20, of 20 before.
	if s.Before != 2000 || s.After != 0.5 || s.Recovered != 3500*time.Millisecond ||
		s.Buckets[0] != 0 || s.Buckets[5] != 0.25 || s.Buckets[15] != 1.25 {
		t.Errorf("%+v", s)
	}
	if err := (&stop{at: begin.Add(-time.Hour)}).sum(lines); err == nil {
		t.Error("a stop before all load was taken for one")
	}
}

func TestSumLocked(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	const second = int(time.Second / slice)
	line := steps(begin, [2]int{100, second}, [2]int{60, second}, [2]int{80, second}, [2]int{8, second})
	at := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Second) }
	phases := []lockedPhase{{8, at(0), at(1)}, {64, at(2), at(3)}}
	for n, want := range map[int]lockedRow{
		8:  {Locked: 8, Without: 10_000, With: 6000, Ratio: 0.6, RatioLow: 0.6, RatioHigh: 0.6},
		64: {Locked: 64, Without: 8000, With: 800, Ratio: 0.1, RatioLow: 0.1, RatioHigh: 0.1},
	} {
		if got := sumLocked(n, phases, time.Second, &line); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestHoldersPresentTheirPayments(t *testing.T) {
	eachStore(t, ledgerSize{Accounts: 5}, func(t *testing.T, where string) {
		other := filepath.Join(t.TempDir(), "other.db")
		if err := prefill(t.Context(), ledgerSize{Store: other, Accounts: 50}); err != nil {
			t.Fatal(err)
		}
		plan := holdersPlan{Stores: []string{where, other}, Rounds: 1, For: 30 * time.Millisecond}
		found := work[[]holdersRounds](t, runHolders, plan)
		row := sumHolders("any", 64, found[1])
		if row.Few < 1 || row.Many < 1 || row.Ratio <= 0 || row.Unpresented <= 0 || row.FewP50 <= 0 || row.ManyP50 <= 0 {
			t.Errorf("%+v", row)
		}
		l, err := openPrefilled(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close(t.Context())
		for _, id := range l.accounts {
			if l.Known(depositOf(id).Hash) {
				t.Fatal("a ledger knows what was not presented to it")
			}
		}
		if err := l.serveAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, id := range l.accounts {
			if !l.Known(depositOf(id).Hash) {
				t.Error("a payment was not presented")
			}
		}
		if s := l.Stats(); s.Credited != 0 {
			t.Errorf("payments on record were credited again: %d", s.Credited)
		}
		for _, id := range l.accounts {
			if b, err := l.Balance(t.Context(), id, nil); err != nil || b.Charged == 0 {
				t.Errorf("a holder made no request: %+v %v", b, err)
			}
		}
	})
}

func TestPairs(t *testing.T) {
	eachStore(t, ledgerSize{Accounts: 3}, func(t *testing.T, where string) {
		done := work[loadResult](t, runPairs, pairsPlan{Store: where, Pairs: 321})
		l, err := openPrefilled(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close(t.Context())
		totals, err := l.Totals(t.Context())
		if err != nil || done.Requests != 321 || totals.Charged != 321*148 || totals.Held != 0 {
			t.Errorf("%+v, %+v, %v", done, totals, err)
		}
	})
}

func TestAuditBesideLoad(t *testing.T) {
	eachStore(t, ledgerSize{Accounts: 20, Charges: 2000}, func(t *testing.T, where string) {
		p := auditPlan{Store: where, Rounds: 1, Limit: time.Minute,
			ledgerLoad: ledgerLoad{Callers: 8, For: 20 * time.Millisecond}}
		a := work[auditResult](t, runAudit, p)
		row := sumAudit(a)
		if len(a.Alone) != 2 || len(a.Beside) < 1 || !a.Finished || a.Took <= 0 || row.Ratio <= 0 ||
			row.Lowest > row.Ratio || isPostgres(where) != (a.WAL == 0) {
			t.Errorf("%+v, %+v", a, row)
		}
		p.Limit = time.Nanosecond
		if a = work[auditResult](t, runAudit, p); a.Finished {
			t.Errorf("an audit finished within a nanosecond: %+v", a)
		}
	})
}

// TestAuditOfDamage checks that a ledger that is not in balance ends the part.
func TestAuditOfDamage(t *testing.T) {
	where := pgtest.Start(t)
	if err := prefill(t.Context(), ledgerSize{Store: where, Accounts: 2}); err != nil {
		t.Fatal(err)
	}
	if err := execute(t.Context(), where, "UPDATE deposits SET credited = credited - 1"); err != nil {
		t.Fatal(err)
	}
	l, err := openPrefilled(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close(t.Context())
	if err := audit(t.Context(), l.Ledger); err == nil || !strings.Contains(err.Error(), "not in balance") {
		t.Errorf("got %v", err)
	}
}

func TestStoredGrows(t *testing.T) {
	eachStore(t, ledgerSize{Accounts: 10}, func(t *testing.T, where string) {
		before, err := measureStored(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		plan := ledgerPlan{Stores: []string{where}, Rounds: 3,
			ledgerLoad: ledgerLoad{Callers: 32, For: 100 * time.Millisecond}}
		rounds := work[[][]ledgerResult](t, runLedger, plan)
		after, err := measureStored(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		kind := storeKinds[0]
		if isPostgres(where) {
			kind = storeKinds[1]
		}
		row := sumHistory(kind, rounds[0], rounds[0], after.less(before))
		if row.Kept < 50 || row.Kept > 10_000 || row.Written < row.Kept/2 || row.Written > 100_000 || row.Ratio != 1 {
			t.Errorf("%+v", row)
		}
	})
}

// TestGoalsOfTheLedgerInTrouble checks that good figures meet each goal and bad figures miss it.
func TestGoalsOfTheLedgerInTrouble(t *testing.T) {
	with := func(after, ratio float64, bytes int64, charges, pairs int) report {
		return report{
			Stopped: &stoppedRow{Stops: []stop{{After: 1, Buckets: []float64{1}}, {After: after, Buckets: []float64{after}}}},
			Locked:  []lockedRow{{Locked: 64, Ratio: after}}, Holders: []holdersRow{{Store: "SQLite", Callers: 1, Ratio: ratio}},
			Holds:   &holdsRow{Pairs: pairs, Largest: bytes / 4},
			History: []historyRow{{Store: "PostgreSQL", Charges: charges, Ratio: ratio}},
			Audit:   []auditRow{{Store: "SQLite", Charges: charges, Ratio: ratio - 0.1, WAL: bytes}},
		}
	}
	good, bad := with(0.5, 0.9, 128<<20-4, historyCharges, holdsPairs), with(0.49, 0.89, 128<<20, 1000, 1000)
	for _, c := range []struct {
		r    report
		met  bool
		note int
	}{{good, true, 0}, {bad, false, 4}} {
		goals := c.r.goals()
		if len(goals) != 7 {
			t.Errorf("%d goals", len(goals))
		}
		notes := 0
		for _, g := range goals {
			if g.met != c.met {
				t.Errorf("%+v", g)
			}
			if strings.Contains(g.what, "meant for") {
				notes++
			}
		}
		if notes != c.note {
			t.Errorf("%d goals say that they were tried on less", notes)
		}
		var out strings.Builder
		err := c.r.markdown(&out)
		if err != nil || strings.Contains(out.String(), "%!") || strings.Count(out.String(), "\n### ") != 7 {
			t.Errorf("%v\n%s", err, &out)
		}
	}
}
