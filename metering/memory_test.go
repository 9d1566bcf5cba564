package metering

import (
	"testing"

	"sluice.example/sluice/l402"
)

// remembered is a store of one account, which decides batches on rows from a Memory.
type remembered struct {
	t       *testing.T
	memory  Memory
	stored  map[l402.TokenID]AccountRow
	holds   map[HoldID]HoldRow
	version int64
	loads   int // rows that had to be loaded for the last batch
}

// run decides one batch of operations. With missed, the store leaves the account out.
func (r *remembered) run(missed bool, ops ...operation) (errs []error) {
	b := newBatch(0)
	for _, op := range ops {
		op.need(b, false)
	}
	r.memory.Fill(b)
	r.loads = 0
	r.load(b)
	decide := func() {
		b.begin()
		errs = errs[:0]
		for _, op := range ops {
			errs = append(errs, op.apply(b))
		}
		b.end()
	}
	decide()
	if !r.memory.Stands(b) {
		b.Rewind()
		r.load(b)
		decide()
	}
	if !b.Changed() {
		return errs
	}
	r.version++
	for row := range b.Accounts.Upserted {
		if now := r.stored[row.ID]; missed || now.Version != row.Version {
			b.Miss(row.ID, false)
			continue
		}
		kept := *row
		kept.Version = r.version
		r.stored[row.ID] = kept
		for h := range b.Holds.Upserted {
			r.holds[h.ID] = *h
		}
		for h := range b.Holds.Deleted {
			delete(r.holds, h.ID)
		}
	}
	r.memory.Wrote(b, r.version)
	return errs
}

func (r *remembered) load(b *Batch) {
	for id := range b.Accounts.Missing {
		r.loads++
		if row, ok := r.stored[id]; ok {
			b.Accounts.Loaded(id, row)
		}
	}
	for id := range b.Holds.Missing {
		r.loads++
		if row, ok := r.holds[id]; ok {
			b.Holds.Loaded(id, row)
		}
	}
	for range b.Charges.Missing {
		r.loads++
	}
}

// others changes the account as another process does.
func (r *remembered) others(id l402.TokenID, more l402.Msat) {
	row := r.stored[id]
	r.version++
	row.Available, row.Deposited, row.Version = row.Available+more, row.Deposited+more, r.version
	r.stored[id] = row
}

func (r *remembered) reserve(id l402.TokenID, amount l402.Msat) *reserveOp {
	return newReserveOp(Reservation{ID: NewHoldID(), Account: id, Amount: amount}, true, true)
}

func settleOf(o *reserveOp, sweep bool) *settleOp {
	return &settleOp{id: o.r.ID, who: o.r.Account, ctx: o.own.ctx, sweep: sweep}
}

func (r *remembered) want(what string, loads int, errs []error) {
	r.t.Helper()
	for _, err := range errs {
		if err != nil {
			r.t.Errorf("%s: %v", what, err)
		}
	}
	if r.loads != loads {
		r.t.Errorf("%s: %d rows were loaded, want %d", what, r.loads, loads)
	}
}

func newRemembered(t *testing.T, id l402.TokenID) *remembered {
	return &remembered{t: t, holds: map[HoldID]HoldRow{},
		stored: map[l402.TokenID]AccountRow{id: {ID: id, Available: 1000, Deposited: 1000}}}
}

// TestMemorySparesLoads checks that no row is loaded of an account that this process wrote last. The exceptions are a
// refusal, usage that heartbeats write, and rows that other processes have changed.
func TestMemorySparesLoads(t *testing.T) {
	id := l402.TokenID{1}
	r := newRemembered(t, id)
	first := r.reserve(id, 100)
	r.want("the first hold", 1, r.run(false, first))
	second := r.reserve(id, 900)
	r.want("the second hold", 0, r.run(false, second))
	if errs := r.run(false, r.reserve(id, 1)); errs[0] == nil || r.loads != 2 {
		t.Errorf("a refusal: %v, %d rows were loaded, want the account and the hold", errs, r.loads)
	}
	r.want("the end of a hold", 0, r.run(false, settleOf(first, false)))
	r.want("a sweep", 2, r.run(false, settleOf(second, true)))
	r.want("a hold that is gone", 2, r.run(false, settleOf(first, true), r.reserve(id, 1)))

	// Another process writes: the batch is left out, and the account is loaded until no other process has changed it
	// for distrustFor batches.
	r.others(id, 50)
	r.run(false, r.reserve(id, 10))
	if held := r.stored[id].Held; held != 1 {
		t.Errorf("%d msat are held over what another process wrote", held)
	}
	for i := range distrustFor + 1 {
		r.want("after another's change", 1, r.run(false, r.reserve(id, 0), r.reserve(id, 1)))
		if i == 0 {
			r.others(id, 1) // another change in between, which is noticed
		}
	}
	r.want("the last of these", 1, r.run(false, r.reserve(id, 1)))
	r.want("trusted again", 0, r.run(false, r.reserve(id, 1)))
	r.memory.Forget()
	r.want("forgotten", 1, r.run(false, r.reserve(id, 1)))
	if a := r.stored[id]; a.Available+a.Held+a.Charged != a.Deposited {
		t.Errorf("account: %+v", a)
	}
}

// TestMemoryIsBounded checks that a Memory which is full forgets all its rows.
func TestMemoryIsBounded(t *testing.T) {
	id := l402.TokenID{1}
	r := newRemembered(t, id)
	most := 0
	for range maxRemembered + 10 {
		if errs := r.run(false, r.reserve(id, 0)); errs[0] != nil {
			t.Fatal(errs[0])
		}
		most = max(most, r.memory.Len())
	}
	if most > maxRemembered+2 || r.memory.Len() > 100 {
		t.Errorf("%d rows are known, at most %d", r.memory.Len(), most)
	}
}

// TestMemoryOfRepeatedBatches checks that a batch which may have been committed without an answer is decided on loaded
// rows.
func TestMemoryOfRepeatedBatches(t *testing.T) {
	id := l402.TokenID{1}
	r := newRemembered(t, id)
	r.want("the first hold", 1, r.run(false, r.reserve(id, 100)))
	b := newBatch(0)
	r.reserve(id, 1).need(b, true)
	b.repeated = true
	r.memory.Fill(b)
	if b.Accounts.recalled(id) {
		t.Error("the account comes from memory")
	}
}
