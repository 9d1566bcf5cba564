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

// Seal closes a period. A period is a run of lines, not a range of times. It begins after the last line of the period
// before. It ends at the last line that audits had read when it was sealed, after the end of its month. A line that is
// appended later belongs to the next period, whatever its time, so nothing can be added to a sealed period. The store
// keeps the sums of each subject at the end of the period, see Snapshot.SealedTallies.
type Seal struct {
	Period int64  `json:"period"` // 1, 2, …
	Name   string `json:"name"`   // the last month in it, such as 2026-03
	Ended  int64  `json:"ended_us"`
	Sealed int64  `json:"sealed_us"`

	From Position `json:"from"` // the lines of the period come after these …
	To   Position `json:"to"`   // … and end with these

	Transfers   int64             `json:"transfers"`    // number of transfers in the period
	BudgetLines int64             `json:"budget_lines"` // number of budget lines in the period
	Deposited   string            `json:"deposited_msat"`
	Charged     string            `json:"charged_msat"` // without what was taken back
	Adjusted    string            `json:"adjusted_msat"`
	Balance     string            `json:"balance_msat"` // of all accounts at the end of the period
	Nodes       map[string]string `json:"nodes_msat"`   // credited, by the Lightning node that reported it; "": none

	TransfersHash   string `json:"transfers_sha256"` // over the transfers and the rows that they name
	BudgetLinesHash string `json:"budget_lines_sha256"`
}

// SealRow is a seal as it is stored. Body is the seal as JSON. Hash is the SHA-256 over the hash of the seal before
// (zeros for the first seal) followed by Body.
type SealRow struct {
	Period int64
	Body   []byte
	Hash   [32]byte
}

func chainHash(prev [32]byte, body []byte) [32]byte { return sha256.Sum256(append(prev[:], body...)) }

// ErrNotSealable reports that the period cannot be closed: an open hold or a provisional charge may still change it, or
// an audit found a mismatch. The caller may try again later.
var ErrNotSealable = errors.New("period cannot be closed yet")

// readSeals decodes the seals of closed periods and checks their chain of hashes, ranges and balances. wrong says what
// is wrong with the first bad seal, and seals then ends before that seal. "" means that all seals are right.
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

// change returns what the period adds to the balance of all accounts, in msat. The result is false when a sum of the
// seal is not a number.
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

// checkSeals reads the seals of closed periods, and reports a chain of seals that is broken. The periods from the bad
// seal on count as open.
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

// recount counts the lines of closed periods once more while a full audit reads them.
type recount struct{ periods []*periodCount }

func newRecount(seals []Seal) *recount {
	r := new(recount)
	for i := range seals {
		r.periods = append(r.periods, newPeriodCount(seals[i].From, seals[i].To))
	}
	return r
}

// lines counts the lines of the set. It does nothing when r is nil.
func (r *recount) lines(set *lineSet) {
	if r == nil {
		return
	}
	for _, p := range r.periods {
		p.add(set)
	}
}

// compare reports the periods whose lines, or the rows that the lines name, have changed since the period was sealed.
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

// SealPeriod closes the period that ended at a moment. The period gets all lines that are there by now. SealPeriod
// first audits what is new. It returns ErrNotSealable and closes nothing when the audit finds a mismatch, when a hold
// that was made before the moment is open, or when the period has a provisional charge that its owner may still
// replace.
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

// sealing reads the lines of a period once more, and copies the running sums of the period's subjects. The audit that
// ran before has left those sums as they are at the end of the period.
type sealing struct {
	books  BookStore
	pause  float64
	most   int   // most subjects to remember in copied
	final  int64 // µs since 1970: nobody replaces a provisional charge made before this
	period int64
	count  *periodCount
	copied map[Subject]bool // subjects whose sums were copied lately
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

// open fails when a hold that was made before ended is still open.
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

// copy writes the sums of the subjects of a slice under the period. The running sums contain the lines of the slice
// already, so the slice has not changed them.
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
