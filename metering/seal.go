package metering

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Seal closes a period. The period is a run of lines, not a range of times: it
// begins where the one before ended and ends where audits had come to when it was
// sealed, after the end of its month. A line that comes later belongs to the next
// period whatever its time, so nothing can be added to a sealed one. The sums of
// each subject at its end are kept by the store, see Snapshot.SealedTallies.
type Seal struct {
	Period int64  `json:"period"` // 1, 2, …
	Name   string `json:"name"`   // the last month in it, as 2026-03
	Ended  int64  `json:"ended_us"`
	Sealed int64  `json:"sealed_us"`

	From Position `json:"from"` // lines after these …
	To   Position `json:"to"`   // … up to these

	Transfers   int64             `json:"transfers"`    // lines of the period
	BudgetLines int64             `json:"budget_lines"` // of it
	Deposited   string            `json:"deposited_msat"`
	Charged     string            `json:"charged_msat"` // less what was taken back
	Adjusted    string            `json:"adjusted_msat"`
	Balance     string            `json:"balance_msat"` // of all accounts at its end
	Nodes       map[string]string `json:"nodes_msat"`   // credited in it, by the Lightning node that settled it; "": none had yet

	TransfersHash   string `json:"transfers_sha256"` // over its lines and the rows that they name
	BudgetLinesHash string `json:"budget_lines_sha256"`
}

// SealRow is a seal as it is stored: Body is the seal as JSON, Hash the SHA-256
// over the hash of the seal before (zeros before the first) and Body.
type SealRow struct {
	Period int64
	Body   []byte
	Hash   [32]byte
}

func chainHash(prev [32]byte, body []byte) [32]byte { return sha256.Sum256(append(prev[:], body...)) }

// ErrNotSealable reports that a request that began in the period may still change
// it. Try again later.
var ErrNotSealable = errors.New("period cannot be closed yet")

// readSeals reads and checks the chain of closed periods; wrong says what does not
// fit, and seals ends before it.
func readSeals(rows []SealRow) (seals []Seal, wrong string) {
	var prev [32]byte
	balance := new(big.Int)
	for i := range rows {
		var s Seal
		if err := json.Unmarshal(rows[i].Body, &s); err != nil {
			return seals, fmt.Sprintf("closed period %d cannot be read", rows[i].Period)
		}
		if rows[i].Hash != chainHash(prev, rows[i].Body) {
			return seals, fmt.Sprintf("closed period %d (%s): its seal was changed, or one before it", rows[i].Period, s.Name)
		}
		prev = rows[i].Hash
		var from Position
		if i > 0 {
			from = seals[i-1].To
		}
		change, ok := s.change()
		if s.Period != int64(i+1) || rows[i].Period != s.Period || s.From != from || !ok {
			return seals, fmt.Sprintf("closed period %d (%s) does not follow the one before", rows[i].Period, s.Name)
		}
		if balance.Add(balance, change).String() != s.Balance {
			return seals, fmt.Sprintf("closed period %d (%s): a balance of %s msat at its end, recomputed %s", s.Period, s.Name, s.Balance, balance)
		}
		seals = append(seals, s)
	}
	return seals, ""
}

// change is what the period adds to the balance of all accounts.
func (s *Seal) change() (*big.Int, bool) {
	sum := new(big.Int)
	for i, text := range []string{s.Deposited, s.Adjusted, s.Charged} {
		v, ok := new(big.Int).SetString(text, 10)
		if !ok {
			return sum, false
		}
		if i == 2 {
			v.Neg(v)
		}
		sum.Add(sum, v)
	}
	return sum, true
}

// checkSeals reads the closed periods, and reports a chain that is broken. Periods
// after the break count as open.
func (a *auditor) checkSeals(ctx context.Context) ([]Seal, error) {
	rows, err := a.store.Seals(ctx)
	if err != nil {
		return nil, err
	}
	seals, wrong := readSeals(rows)
	if wrong != "" {
		a.mismatch(Subject{}, "%s", wrong)
	}
	a.Periods = int64(len(seals))
	return seals, nil
}

// recount counts closed periods once more while a full audit reads their lines.
type recount struct{ periods []*periodCount }

func newRecount(seals []Seal) *recount {
	r := new(recount)
	for i := range seals {
		r.periods = append(r.periods, newPeriodCount(seals[i].From, seals[i].To))
	}
	return r
}

// lines counts lines; of no recount, none.
func (r *recount) lines(set *lineSet) {
	if r == nil {
		return
	}
	for _, p := range r.periods {
		p.add(set)
	}
}

// compare reports the periods whose lines, or the rows behind them, are not those
// that were sealed.
func (r *recount) compare(a *auditor, seals []Seal) {
	if r == nil {
		return
	}
	for i, p := range r.periods {
		was, is := seals[i], p.seal()
		if is.TransfersHash != was.TransfersHash || is.BudgetLinesHash != was.BudgetLinesHash || is.Transfers != was.Transfers ||
			is.BudgetLines != was.BudgetLines || is.Deposited != was.Deposited || is.Charged != was.Charged || is.Adjusted != was.Adjusted {
			a.mismatch(Subject{}, "closed period %d (%s): its lines, or the rows that they name, were changed after it was sealed", was.Period, was.Name)
		}
	}
}

// SealPeriod closes the period that ended at a moment, with all lines that are
// there by now. It audits what is new first, and closes nothing when that finds
// anything wrong. ErrNotSealable as long as a hold that was made before the moment
// is open, or a charge in the period is provisional and its owner may replace it.
func (l *Ledger) SealPeriod(ctx context.Context, ended time.Time) (Seal, error) {
	s, err := l.sealPeriod(ctx, ended)
	if err != nil && !errors.Is(err, ErrNotSealable) {
		err = unavailable("close period", err)
	}
	return s, err
}

func (l *Ledger) sealPeriod(ctx context.Context, ended time.Time) (Seal, error) {
	report, err := l.auditNew(ctx)
	if err != nil {
		return Seal{}, err
	}
	if !report.OK() {
		return Seal{}, fmt.Errorf("%w: the audit found %d mismatches: %q", ErrNotSealable, report.Mismatched, report.Mismatches)
	}
	rows, err := l.store.Seals(ctx)
	if err != nil {
		return Seal{}, err
	}
	seals, wrong := readSeals(rows)
	if wrong != "" {
		return Seal{}, fmt.Errorf("%w: %s", ErrNotSealable, wrong)
	}
	state, err := l.store.AuditState(ctx)
	if err != nil {
		return Seal{}, err
	}
	w := &sealing{books: l.store, pause: l.cfg.AuditPause, most: l.cfg.AuditSubjects, final: time.Now().Add(-l.cfg.LateSettle).UnixMicro(), period: int64(len(seals) + 1),
		copied: make(map[Subject]bool)}
	var last Seal
	var prev [32]byte
	if len(seals) > 0 {
		last, prev = seals[len(seals)-1], rows[len(rows)-1].Hash
	}
	w.count = newPeriodCount(last.To, state.Scanned)
	if err := w.run(ctx, ended); err != nil {
		return Seal{}, err
	}
	s := w.count.seal()
	s.Period, s.Name = w.period, ended.Add(-time.Microsecond).UTC().Format("2006-01")
	s.Ended, s.Sealed = ended.UnixMicro(), time.Now().UnixMicro()
	change, _ := s.change()
	if before, ok := new(big.Int).SetString(last.Balance, 10); ok {
		change.Add(change, before)
	}
	s.Balance = change.String()
	body, err := json.Marshal(&s)
	if err != nil {
		return Seal{}, fmt.Errorf("encode a seal: %w", err)
	}
	return s, l.store.AddSeal(ctx, SealRow{Period: s.Period, Body: body, Hash: chainHash(prev, body)})
}

// sealing reads the lines of a period once more, and copies the sums of its
// subjects: the audit that ran before has left them as they are at its end.
type sealing struct {
	books  BookStore
	pause  float64
	most   int   // subjects to remember
	final  int64 // a provisional charge of that time stays as it is
	period int64
	count  *periodCount
	copied map[Subject]bool // the latest of them
}

func (w *sealing) run(ctx context.Context, ended time.Time) error {
	a := newAuditor(w.books)
	a.pause, a.at = w.pause, w.count.from
	a.base = func(s Snapshot, ids []Subject, fn func(Tally)) error { return s.Tallies(ids, fn) }
	var early error
	a.watch = func(set *lineSet) {
		w.count.add(set)
		for _, c := range set.charges {
			if c != nil && c.Provisional && c.At > w.final {
				early = fmt.Errorf("%w: charge %s is provisional", ErrNotSealable, c.Hold)
			}
		}
	}
	if err := w.open(ctx, ended); err != nil {
		return err
	}
	for a.at != w.count.to {
		if err := a.slice(ctx, w.count.to); err != nil {
			return err
		}
		if early != nil {
			return early
		}
		if err := w.copy(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// open fails while a hold that was made before the end is open.
func (w *sealing) open(ctx context.Context, ended time.Time) (err error) {
	looking := w.books.Look(ctx, func(s Snapshot) error {
		return s.Holds(func(h HoldRow) {
			if h.ID.Time().Before(ended) {
				err = fmt.Errorf("%w: hold %s is open", ErrNotSealable, h.ID)
			}
		})
	})
	return errors.Join(looking, err)
}

// copy writes the sums of the subjects of a slice. (The lines of the slice are part
// of the sums already, so adding them again changed nothing.)
func (w *sealing) copy(ctx context.Context, a *auditor) error {
	var list []Tally
	if len(w.copied) > w.most {
		clear(w.copied)
	}
	for id, t := range a.tallies {
		if !w.copied[id] {
			w.copied[id] = true
			list = append(list, t.Tally)
		}
	}
	clear(a.tallies)
	for len(list) > 0 {
		began, n := time.Now(), min(len(list), saveAtOnce)
		if err := w.books.SaveTallies(ctx, w.period, list[:n]); err != nil {
			return err
		}
		list = list[n:]
		if err := a.rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
	return nil
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
