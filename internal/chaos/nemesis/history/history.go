// Package history is what the clients of one schedule asked and were told, what
// was done to the system meanwhile, and what the ledger says at the end. Check
// compares them with the ledger's promises.
//
// A history is plain data: tests of the checker write bad ones by hand.
package history

// Kind is what a client asked for.
type Kind string

// The kinds of operations.
const (
	Pay     Kind = "pay"     // the client paid an invoice at the Lightning node; no operation of the ledger
	Deposit Kind = "deposit" // the client presents a payment
	Reserve Kind = "reserve" // with Payment: the payment is presented with it
	Extend  Kind = "extend"
	Report  Kind = "progress"
	Settle  Kind = "settle" // a release is a settlement that costs nothing
	Credit  Kind = "credit" // the Lightning node reports a payment as settled
	Balance Kind = "balance"
)

// Status is what the client was told.
type Status string

// The ends of an operation.
const (
	OK      Status = "ok"      // it took place
	Fail    Status = "fail"    // it was refused and did not take place, except that a presented payment is credited
	Unknown Status = "unknown" // no answer, or an answer that leaves it open
)

// The reasons of refusals and of missing answers.
const (
	Insufficient = "insufficient"
	Duplicate    = "duplicate"   // the idempotency key is in use or was charged
	Swept        = "swept"       // the hold was swept, so it cannot be extended
	Ended        = "ended"       // the hold has ended
	Busy         = "busy"        // nothing took place, not even the deposit
	Foreign      = "foreign"     // the payment belongs to another account
	Rejected     = "rejected"    // the store's own guards refused the rows
	Unavailable  = "unavailable" // the ledger says that the store does not answer
	Late         = "late"        // no answer within the client's patience
	Gone         = "gone"        // the teller ended first
	Other        = "other"
)

// Op is one operation from its invocation to its completion. Times are in µs
// since the schedule began, by the clock of the process that plays it. Amounts
// are in msat.
type Op struct {
	ID      int    `json:"id"`
	Client  string `json:"client"`
	Teller  string `json:"teller,omitempty"` // replica and its incarnation: t2#1
	Kind    Kind   `json:"kind"`
	Account string `json:"account,omitempty"`
	Hold    string `json:"hold,omitempty"`
	// Amount is that of the payment or hold, the total of an extension, or the cost
	// of a settlement or of the progress.
	Amount  int64    `json:"amount,omitempty"`
	Budgets []string `json:"budgets,omitempty"`
	Key     string   `json:"key,omitempty"` // idempotency key
	Payment string   `json:"payment,omitempty"`
	Node    string   `json:"node,omitempty"`
	Index   uint64   `json:"index,omitempty"`
	Start   int64    `json:"start_us"`

	End    int64  `json:"end_us"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"` // the error's text
	Answer Answer `json:"answer"`
}

// Answer is what the teller said beyond the status.
type Answer struct {
	Charged     int64  `json:"charged,omitempty"`     // by Settle; by Balance: of the account in all
	Credited    int64  `json:"credited,omitempty"`    // by Deposit and Credit
	Provisional bool   `json:"provisional,omitempty"` // Settle came too late to replace a sweep's charge
	Available   int64  `json:"available,omitempty"`
	Held        int64  `json:"held,omitempty"`
	Deposited   int64  `json:"deposited,omitempty"`
	First       string `json:"first,omitempty"` // Duplicate: the hold that was charged for the key
}

// Span is a time in which something was wrong, in µs. The field Who names a
// teller's incarnation (one process), a teller (the connections of all its
// incarnations), Database, or Machine.
type Span struct {
	Who  string `json:"who"`
	What string `json:"what"`
	From int64  `json:"from_us"`
	To   int64  `json:"to_us"`
}

// Whom a span may concern, other than tellers.
const (
	Database = "database" // it did not answer
	Machine  = "machine"  // everything stood still: the machine was busy
)

// Dead is the What of a teller's span that never ends.
const Dead = "dead"

// Outage is an end of the database's process. Everything that was answered as
// durable survives it, unless it was Lossy: then the database lost what was
// answered after Safe.
type Outage struct {
	At    int64 `json:"at_us"`
	Back  int64 `json:"back_us"`
	Lossy bool  `json:"lossy,omitempty"` // failover to a standby that lacked the last commits
	Safe  int64 `json:"safe_us"`         // of a lossy one: what was answered until then, the standby had
}

// Sweep is a hold that was seen swept, between two looks.
type Sweep struct {
	Hold   string `json:"hold"`
	After  int64  `json:"after_us"`
	Before int64  `json:"before_us"`
}

// Account is what the ledger says about an account, in msat.
type Account struct {
	Available int64 `json:"available"`
	Held      int64 `json:"held"`
	Deposited int64 `json:"deposited"`
	Charged   int64 `json:"charged"`
}

// Charge is one line of an account.
type Charge struct {
	Hold        string `json:"hold"`
	Account     string `json:"account"`
	Charged     int64  `json:"charged"`
	Outcome     string `json:"outcome"`
	Provisional bool   `json:"provisional,omitempty"`
}

// State is what the ledger says at a moment without open requests.
type State struct {
	At         int64              `json:"at_us"`
	Accounts   map[string]Account `json:"accounts"`
	Charges    []Charge           `json:"charges"`
	Deposits   map[string]int64   `json:"deposits"` // credited, by payment
	Mismatches []string           `json:"mismatches,omitempty"`
}

// History is one schedule as it was played.
type History struct {
	Seed   uint64   `json:"seed"`
	Store  string   `json:"store"`
	Faults []string `json:"faults"`

	Lease      int64            `json:"lease_us"`
	RenewEvery int64            `json:"renew_every_us"`
	SweepEvery int64            `json:"sweep_every_us"`
	Budgets    map[string]int64 `json:"budgets"` // limit in msat

	Ops     []Op     `json:"-"`
	Spans   []Span   `json:"spans"`
	Outages []Outage `json:"outages"`
	Sweeps  []Sweep  `json:"sweeps"`
	Audits  []string `json:"audits,omitempty"` // what audits found while the schedule ran

	// Healed is when all tellers and the database answered again and no client had
	// an open request.
	Healed  int64 `json:"healed_us"`
	NoHolds int64 `json:"no_holds_us"` // when no hold was open any more; 0: never

	// Stuck is what did not answer again although everything was whole. Then there
	// is no last look.
	Stuck []string `json:"stuck,omitempty"`

	Before State `json:"before"` // all is quiet again
	After  State `json:"after"`  // and every payment was presented again
}
