package history

import (
	"slices"
	"testing"
)

// Times of the histories below, in µs.
const (
	ms     = int64(1000)
	second = 1000 * ms
)

// good is a history in which every promise was kept: two payments, a request of
// each kind of end, a teller that was killed, and a failover that lost the last
// commits.
func good() *History {
	h := &History{
		Lease: 1500 * ms, RenewEvery: 500 * ms, SweepEvery: 300 * ms,
		Budgets: map[string]int64{"b": 100},
		Ops: []Op{
			op(1, Pay, "a", 1*ms, 2*ms, pays("p1", 1000)),
			op(2, Deposit, "a", 3*ms, 5*ms, pays("p1", 1000), says(Answer{Credited: 1000})),
			op(3, Reserve, "a", 10*ms, 12*ms, holds("h1", 50), under("b")),
			op(4, Report, "a", 20*ms, 21*ms, holds("h1", 10)),
			op(5, Extend, "a", 30*ms, 31*ms, holds("h1", 60)),
			op(6, Settle, "a", 40*ms, 42*ms, holds("h1", 45), says(Answer{Charged: 45})),
			// A key: charged, and refused when it comes again.
			op(7, Reserve, "a", 50*ms, 52*ms, holds("h2", 30), keyed("k")),
			op(8, Settle, "a", 60*ms, 62*ms, holds("h2", 30), says(Answer{Charged: 30})),
			op(9, Reserve, "a", 70*ms, 72*ms, holds("h3", 30), keyed("k"), fails(Duplicate)),
			// Its owner dies at 100 ms; another teller charges what was reported.
			op(10, Reserve, "a", 80*ms, 82*ms, holds("h4", 40), at("t2#1")),
			op(11, Report, "a", 90*ms, 91*ms, holds("h4", 20), at("t2#1")),
			op(12, Settle, "a", 95*ms, 100*ms, holds("h4", 25), at("t2#1"), unknown(Gone)),
			// The failover at 2 s loses the deposit of p2, which is presented again.
			op(13, Pay, "a", 1500*ms, 1501*ms, pays("p2", 500)),
			op(14, Deposit, "a", 1950*ms, 1960*ms, pays("p2", 500), says(Answer{Credited: 500})),
			op(15, Balance, "a", 1970*ms, 1971*ms, says(Answer{Available: 1405, Deposited: 1500, Charged: 95})),
			op(16, Balance, "a", 2600*ms, 2601*ms, says(Answer{Available: 905, Deposited: 1000, Charged: 95})),
			op(17, Reserve, "a", 2700*ms, 2701*ms, holds("h5", 2000), fails(Insufficient)),
			op(18, Deposit, "a", 2800*ms, 2801*ms, pays("p2", 500), says(Answer{Credited: 500})),
			// After the last state but one.
			op(19, Reserve, "a", 5000*ms, 5001*ms, holds("h6", 1405)),
			op(20, Settle, "a", 5002*ms, 5003*ms, holds("h6", 0)),
			op(21, Balance, "a", 6100*ms, 6101*ms, says(Answer{Available: 1405, Deposited: 1500, Charged: 95})),
		},
		Spans:   []Span{{"t2#1", Dead, 100 * ms, never}, {Database, "failover", 2000 * ms, 2500 * ms}},
		Outages: []Outage{{At: 2000 * ms, Back: 2500 * ms, Lossy: true, Safe: 1900 * ms}},
		Sweeps:  []Sweep{{"h4", 1600 * ms, 1700 * ms}},
		Healed:  3 * second, NoHolds: 3100 * ms,
	}
	lines := []Charge{{"h1", "a", 45, "complete", false}, {"h2", "a", 30, "complete", false}, {"h4", "a", 20, "swept",
		true}}
	for _, s := range []*State{&h.Before, &h.After} {
		s.Accounts = map[string]Account{"a": {Available: 1405, Deposited: 1500, Charged: 95}}
		s.Charges = slices.Clone(lines)
		s.Deposits = map[string]int64{"p1": 1000, "p2": 500}
	}
	h.Before.At, h.After.At = 4*second, 6*second
	return h
}

type change func(*Op)

func op(id int, kind Kind, account string, start, end int64, changes ...change) Op {
	o := Op{ID: id, Client: "c", Teller: "t1#1", Kind: kind, Account: account, Start: start, End: end, Status: OK}
	for _, c := range changes {
		c(&o)
	}
	return o
}

func pays(payment string, amount int64) change {
	return func(o *Op) { o.Payment, o.Amount = payment, amount }
}
func holds(hold string, amount int64) change { return func(o *Op) { o.Hold, o.Amount = hold, amount } }
func under(budgets ...string) change         { return func(o *Op) { o.Budgets = budgets } }
func keyed(key string) change                { return func(o *Op) { o.Key = key } }
func at(teller string) change                { return func(o *Op) { o.Teller = teller } }
func says(a Answer) change                   { return func(o *Op) { o.Answer = a } }
func fails(why string) change                { return func(o *Op) { o.Status, o.Reason = Fail, why } }
func unknown(why string) change              { return func(o *Op) { o.Status, o.Reason = Unknown, why } }

func (h *History) op(id int) *Op { return &h.Ops[id-1] }

// also adds an operation; those of a history are in the order of their ids.
func (h *History) also(kind Kind, start, end int64, changes ...change) {
	h.Ops = append(h.Ops, op(len(h.Ops)+1, kind, "a", start, end, changes...))
}

func TestGoodHistory(t *testing.T) {
	for _, f := range Check(good()) {
		t.Error(f)
	}
}

// TestBadHistories: each rule finds the history that breaks it. Other rules may
// find it, too.
func TestBadHistories(t *testing.T) {
	for _, bad := range badHistories {
		t.Run(bad.rule+"/"+bad.name, func(t *testing.T) {
			h := good()
			bad.spoil(h)
			found := Check(h)
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == bad.rule }) {
				t.Errorf("not found; only %v", found)
			}
		})
	}
}

// TestEveryRuleHasABadHistory keeps the table complete.
func TestEveryRuleHasABadHistory(t *testing.T) {
	for _, r := range Rules {
		if !slices.ContainsFunc(badHistories, func(b badHistory) bool { return b.rule == r.Name }) {
			t.Errorf("no history breaks the rule %s", r.Name)
		}
	}
}

// TestAllowedHistories: what is no finding, because a promise does not reach so
// far.
func TestAllowedHistories(t *testing.T) {
	for name, change := range map[string]func(*History){
		"a deposit answered after the standby's last position is lost": func(h *History) {
			h.Before.Deposits["p2"] = 0
			h.Ops[17].Status = Unknown // it was not presented again until the end
			h.Before.Accounts["a"] = Account{Available: 905, Deposited: 1000, Charged: 95}
		},
		"a settlement answered then is lost, and the hold was swept": func(h *History) {
			h.also(Reserve, 1800*ms, 1801*ms, holds("h7", 10))
			h.also(Settle, 1950*ms, 1951*ms, holds("h7", 7), says(Answer{Charged: 7}))
			h.Before.Charges = append(h.Before.Charges, Charge{"h7", "a", 0, "swept", true})
			h.After.Charges = append(h.After.Charges, Charge{"h7", "a", 0, "swept", true})
			h.op(15).Answer = Answer{Available: 1398, Deposited: 1500, Charged: 102}
		},
		"a hold is swept whose owner was stopped for a lease": func(h *History) {
			h.also(Reserve, 2900*ms, 2901*ms, holds("h7", 10))
			h.Spans = append(h.Spans, Span{"t1#1", "stop", 2910 * ms, 4410 * ms})
			h.Sweeps = append(h.Sweeps, Sweep{"h7", 4300 * ms, 4400 * ms})
		},
		"a hold is swept whose owner was cut off for a lease": func(h *History) {
			h.also(Reserve, 2900*ms, 2901*ms, holds("h7", 10))
			h.Spans = append(h.Spans, Span{"t1", "cut", 2910 * ms, 4410 * ms})
			h.Sweeps = append(h.Sweeps, Sweep{"h7", 4300 * ms, 4400 * ms})
		},
		"a settlement without an answer was charged": func(h *History) {
			h.Before.Charges[2].Charged, h.After.Charges[2].Charged = 25, 25
			for _, s := range []*State{&h.Before, &h.After} {
				s.Accounts["a"] = Account{Available: 1400, Deposited: 1500, Charged: 100}
			}
			h.op(19).Amount = 1400
			for _, id := range []int{15, 16, 21} {
				h.op(id).Answer.Charged += 5
				h.op(id).Answer.Available -= 5
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			change(h)
			for _, f := range Check(h) {
				t.Error(f)
			}
		})
	}
}
