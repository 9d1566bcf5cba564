package history

import (
	"fmt"
	"slices"
	"strings"
)

// Finding is a broken promise.
type Finding struct {
	Rule string
	Text string
	Ops  []int // the operations that show it
}

// String is one line.
func (f Finding) String() string {
	if len(f.Ops) == 0 {
		return f.Rule + ": " + f.Text
	}
	return fmt.Sprintf("%s: %s (operations %s)", f.Rule, f.Text, strings.Trim(fmt.Sprint(f.Ops), "[]"))
}

// Rule is one promise and how it is checked.
type Rule struct {
	Name    string
	Promise string
	check   func(*model, func(text string, ops ...*Op))
}

// Rules is every promise that Check knows.
var Rules = []Rule{
	{"charge-stands", "an answered settlement stands with the amount that was answered", chargeStands},
	{"charge-right", "an undisturbed request pays what it cost, at most what it held", chargeRight},
	{"charge-bounds", "a request without an answer was charged at most once, for what it reported or was settled with",
		chargeBounds},
	{"charge-known", "no charge without a request, none for a refused one, one line for each", chargeKnown},
	{"key-once", "one idempotency key is charged at most once", keyOnce},
	{"deposit-stands", "an answered deposit stands", depositStands},
	{"deposit-once", "a payment is credited once, with what was paid", depositOnce},
	{"deposit-back", "a payment that is presented again is credited, whatever the database lost", depositBack},
	{"refused", "a client is not refused for lack of money that it can prove", refused},
	{"overcommit", "what is held and charged never exceeds what was paid, or a budget's limit", overcommit},
	{"budget", "the charges of a budget stay within its limit", budgetLimit},
	{"balance", "a balance shows what was answered before, and nothing that was never asked for", balanceShows},
	{"swept-living", "a hold is not swept while its owner lives and is connected", sweptLiving},
	{"holds-end", "the holds of dead owners end within two leases once the system is whole", holdsEnd},
	{"recovers", "everybody answers again once the system is whole", recovers},
	{"audit", "the ledger's own audit finds nothing", auditClean},
	{"sums", "what was paid is available, held or charged", sumsAgree},
	{"guard", "the store's guards have nothing to refuse", guardsQuiet},
}

// maxFindings bounds what one rule reports.
const maxFindings = 10

// Check returns every broken promise. Without a last look nothing can be said
// about most of them.
func Check(h *History) []Finding {
	m := newModel(h)
	var all []Finding
	for _, r := range Rules {
		if len(h.Stuck) > 0 && r.Name != "recovers" {
			continue
		}
		n := 0
		r.check(m, func(text string, ops ...*Op) {
			if n++; n > maxFindings {
				return
			}
			f := Finding{Rule: r.Name, Text: text}
			for _, op := range ops {
				if op != nil {
					f.Ops = append(f.Ops, op.ID)
				}
			}
			all = append(all, f)
		})
	}
	return all
}

// holdsEnd: the last hold of a dead owner must be gone within two leases and a
// few looks of the sweeper.
func holdsEnd(m *model, report func(string, ...*Op)) {
	limit := 2*m.Lease + 3*m.SweepEvery + slack
	took := m.NoHolds - m.Healed
	switch {
	case m.NoHolds == 0:
		report("holds were open to the end")
	case took > limit:
		report(fmt.Sprintf("the last hold ended %d ms after the system was whole, want at most %d ms", took/1000, limit/1000))
	}
}

// slack is what a busy machine may add, in µs.
const slack = 1_000_000

func recovers(m *model, report func(string, ...*Op)) {
	for _, text := range m.Stuck {
		report(text)
	}
}

func auditClean(m *model, report func(string, ...*Op)) {
	all := slices.Concat(m.Audits, m.Before.Mismatches, m.After.Mismatches)
	for _, text := range slices.Compact(all) {
		report(text)
	}
}

func guardsQuiet(m *model, report func(string, ...*Op)) {
	for i := range m.Ops {
		if op := &m.Ops[i]; op.Reason == Rejected {
			report("the store's guards refused rows: "+op.Text, op)
		}
	}
}

func sumsAgree(m *model, report func(string, ...*Op)) {
	for account, paid := range m.paidBy {
		var sum int64
		for _, p := range paid {
			sum += p.paid.Amount
		}
		a := m.After.Accounts[account]
		if a.Available+a.Held+a.Charged != sum {
			report(fmt.Sprintf("account %s paid %d msat: available %d + held %d + charged %d is %d", account, sum,
				a.Available, a.Held, a.Charged, a.Available+a.Held+a.Charged))
		}
		if a.Deposited != sum {
			report(fmt.Sprintf("account %s paid %d msat and was credited %d", account, sum, a.Deposited))
		}
	}
	for name, s := range map[string]*State{"before": &m.Before, "after": &m.After} {
		lines := map[string]int64{}
		for _, c := range s.Charges {
			lines[c.Account] += c.Charged
		}
		for account, a := range s.Accounts {
			if lines[account] != a.Charged {
				report(fmt.Sprintf("account %s was charged %d msat, its lines %s say %d", account, a.Charged, name, lines[account]))
			}
		}
	}
}
