package history

// badHistory is a history by hand in which one promise is broken.
type badHistory struct {
	rule, name string
	spoil      func(*History)
}

var badHistories = []badHistory{
	{"charge-stands", "an answered settlement is undone", func(h *History) {
		h.Before.Charges = h.Before.Charges[1:]
	}},
	{"charge-stands", "an answered settlement stands with another amount", func(h *History) {
		h.Before.Charges[0].Charged = 90 // twice, after a commit that nobody heard of
	}},
	{"charge-stands", "one settlement has two answers", func(h *History) {
		h.also(Settle, 43*ms, 44*ms, holds("h1", 45), says(Answer{Charged: 44}))
	}},
	{"charge-stands", "what the standby had is lost", func(h *History) {
		h.Outages[0].Safe = 50 * ms // so the settlement of h1 must survive, the one of h2 need not
		h.Before.Charges = h.Before.Charges[1:]
	}},
	{"charge-right", "more than the cost", func(h *History) {
		h.op(6).Answer.Charged, h.Before.Charges[0].Charged = 46, 46
	}},
	{"charge-right", "less than the cost, with nothing in between", func(h *History) {
		h.op(6).Answer.Charged, h.Before.Charges[0].Charged = 0, 0
	}},
	{"charge-bounds", "a sweep charges what nobody reported", func(h *History) {
		h.Outages = nil
		h.Before.Charges[2].Charged = 21
	}},
	{"charge-bounds", "a sweep charges more than was held", func(h *History) {
		h.Before.Charges[2].Charged = 41
	}},
	{"charge-known", "a charge without a request", func(h *History) {
		h.Before.Charges = append(h.Before.Charges, Charge{"h99", "a", 5, "complete", false})
	}},
	{"charge-known", "a refused request has a line", func(h *History) {
		h.Before.Charges = append(h.Before.Charges, Charge{"h3", "a", 0, "swept", true})
	}},
	{"charge-known", "one hold has two lines", func(h *History) {
		h.Before.Charges = append(h.Before.Charges, h.Before.Charges[0])
	}},
	{"charge-known", "a charge of another account", func(h *History) {
		h.Before.Charges[0].Account = "z"
	}},
	{"key-once", "a repeated key is charged again", func(h *History) {
		*h.op(9) = op(9, Reserve, "a", 70*ms, 72*ms, holds("h3", 30), keyed("k"))
		h.also(Settle, 74*ms, 75*ms, holds("h3", 30), says(Answer{Charged: 30}))
		h.Before.Charges = append(h.Before.Charges, Charge{"h3", "a", 30, "complete", false})
	}},
	{"deposit-stands", "an answered deposit is undone", func(h *History) {
		h.Before.Deposits["p1"] = 0
	}},
	{"deposit-stands", "a deposit that was presented again is remembered, not credited", func(h *History) {
		h.Before.Deposits["p2"] = 0 // answered after the failover
	}},
	{"deposit-stands", "a synchronous standby lost a deposit", func(h *History) {
		h.Outages[0].Lossy = false
		h.Before.Deposits["p2"] = 0
	}},
	{"deposit-once", "a payment is credited twice", func(h *History) {
		h.Before.Deposits["p1"] = 2000
	}},
	{"deposit-once", "two answers added it", func(h *History) {
		h.also(Credit, 6*ms, 7*ms, pays("p1", 1000), says(Answer{Credited: 1000}))
	}},
	{"deposit-once", "a payment that nobody made", func(h *History) {
		h.After.Deposits["p99"] = 10
	}},
	{"deposit-back", "a payment stays lost", func(h *History) {
		h.After.Deposits["p2"] = 0
	}},
	{"refused", "a request is refused although the balance covers it", func(h *History) {
		h.also(Reserve, 65*ms, 66*ms, holds("h7", 600), fails(Insufficient))
	}},
	{"refused", "a payment that is presented with the request does not count", func(h *History) {
		h.also(Reserve, 2650*ms, 2651*ms, holds("h7", 1300), with("p2"), fails(Insufficient))
	}},
	{"refused", "what is left at the end cannot be spent", func(h *History) {
		h.also(Reserve, 5004*ms, 5005*ms, holds("h7", 1405), fails(Insufficient))
	}},
	{"refused", "a payment is taken for another account's", func(h *History) {
		h.also(Deposit, 7*ms, 8*ms, pays("p1", 1000), fails(Foreign))
	}},
	{"overcommit", "more is held than was paid", func(h *History) {
		h.also(Reserve, 41*ms, 43*ms, holds("h7", 980))
		h.also(Reserve, 44*ms, 45*ms, holds("h8", 100))
	}},
	{"overcommit", "a budget is held beyond its limit", func(h *History) {
		h.also(Reserve, 35*ms, 36*ms, holds("h7", 60), under("b"))
	}},
	{"budget", "a budget is charged beyond its limit", func(h *History) {
		h.Budgets["b"] = 44
	}},
	{"balance", "an answered charge is not shown", func(h *History) {
		h.also(Balance, 64*ms, 65*ms, says(Answer{Available: 955, Deposited: 1000, Charged: 45}))
	}},
	{"balance", "an answered deposit is not shown", func(h *History) {
		h.also(Balance, 6*ms, 7*ms, says(Answer{}))
	}},
	{"balance", "money that nobody paid is shown", func(h *History) {
		h.also(Balance, 6*ms, 7*ms, says(Answer{Available: 1001, Deposited: 1001}))
	}},
	{"balance", "the parts do not add up", func(h *History) {
		h.also(Balance, 6*ms, 7*ms, says(Answer{Available: 999, Deposited: 1000}))
	}},
	{"balance", "a teller shows another number than the ledger has", func(h *History) {
		h.op(21).Answer = Answer{Available: 1000, Held: 405, Deposited: 1500, Charged: 95}
	}},
	{"swept-living", "a hold is swept whose owner lives", func(h *History) {
		h.also(Reserve, 2900*ms, 2901*ms, holds("h7", 10))
		h.Sweeps = append(h.Sweeps, Sweep{"h7", 3000 * ms, 3050 * ms})
	}},
	{"swept-living", "its owner was stopped for a moment only", func(h *History) {
		h.also(Reserve, 2900*ms, 2901*ms, holds("h7", 10))
		h.Spans = append(h.Spans, Span{"t1#1", "stop", 3600 * ms, 3900 * ms})
		h.Sweeps = append(h.Sweeps, Sweep{"h7", 3910 * ms, 3950 * ms})
	}},
	{"swept-living", "the database was away for a lease", func(h *History) {
		h.also(Reserve, 1700*ms, 1701*ms, holds("h7", 10))
		h.Spans[1].To = 4500 * ms
		h.Sweeps = append(h.Sweeps, Sweep{"h7", 4500 * ms, 4600 * ms})
	}},
	{"swept-living", "an extension finds the hold swept", func(h *History) {
		h.also(Reserve, 2900*ms, 2901*ms, holds("h7", 10))
		h.also(Extend, 2950*ms, 2951*ms, holds("h7", 20), fails(Swept))
	}},
	{"holds-end", "a hold stays open", func(h *History) { h.NoHolds = 0 }},
	{"holds-end", "a hold stays open for too long", func(h *History) { h.NoHolds = h.Healed + 6*second }},
	{"recovers", "a teller stays silent", func(h *History) { h.Stuck = []string{"t1#1 does not answer"} }},
	{"audit", "an audit beside the load finds something",
		func(h *History) { h.Audits = []string{"account a: held 5, open holds 0"} }},
	{"audit", "the last audit finds something",
		func(h *History) { h.After.Mismatches = []string{"revenue 5, accounts were charged 6"} }},
	{"sums", "money is gone", func(h *History) {
		h.After.Accounts["a"] = Account{Available: 1404, Deposited: 1500, Charged: 95}
	}},
	{"sums", "the lines do not add up to what was charged", func(h *History) {
		h.After.Charges[0].Charged = 44
	}},
	{"guard", "the store refuses rows", func(h *History) {
		h.also(Settle, 43*ms, 44*ms, holds("h1", 45), unknown(Rejected))
	}},
}

func with(payment string) change { return func(o *Op) { o.Payment = payment } }
