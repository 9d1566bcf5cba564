package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// tellerConfig is what a teller's command line says.
type tellerConfig struct {
	socket, postgres, sqlite string
	lease                    time.Duration
	clock                    time.Duration
}

// teller is one process with a ledger of its own on the store.
type teller struct {
	ledger atomic.Pointer[metering.Ledger] // nil until the store has answered
	offset atomic.Int64                    // ns that the SQLite store's clock is off

	mu    sync.Mutex
	holds map[string]*metering.Hold
	out   *json.Encoder
}

// patience is how long a teller's ledger waits for a store that does not answer.
const patience = time.Second

// serveTeller opens the ledger and answers the player until it is told to end.
func serveTeller(args []string) error {
	var c tellerConfig
	set := flag.NewFlagSet("teller", flag.ContinueOnError)
	set.StringVar(&c.socket, "socket", "", "")
	set.StringVar(&c.postgres, "postgres", "", "")
	set.StringVar(&c.sqlite, "sqlite", "", "")
	set.DurationVar(&c.lease, "lease", 0, "")
	set.DurationVar(&c.clock, "clock", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	listener, err := net.Listen("unix", c.socket)
	if err != nil {
		return err
	}
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	t := &teller{holds: map[string]*metering.Hold{}, out: json.NewEncoder(conn)}
	t.offset.Store(int64(c.clock))
	go t.open(ctx, c)
	go t.watchStalls()
	go t.read(conn)
	<-ctx.Done()
	if l := t.ledger.Load(); l != nil {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return l.Close(closing)
	}
	return nil
}

// open tries until the store answers.
func (t *teller) open(ctx context.Context, c tellerConfig) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	for ctx.Err() == nil {
		opening, cancel := context.WithTimeout(ctx, 2*time.Second)
		l, err := t.openOnce(opening, c, log)
		cancel()
		if err == nil {
			t.ledger.Store(l)
			return
		}
		log.Warn("the ledger does not open", "error", err)
		time.Sleep(50 * time.Millisecond)
	}
}

func (t *teller) openOnce(ctx context.Context, c tellerConfig, log *slog.Logger) (*metering.Ledger, error) {
	var store metering.Store
	var closeStore func() error
	if c.postgres != "" {
		db, err := postgres.Open(ctx, c.postgres)
		if err != nil {
			return nil, err
		}
		store, closeStore = db, db.Close
	} else {
		now := func() time.Time { return time.Now().Add(time.Duration(t.offset.Load())) }
		db, err := sqlite.Open(ctx, c.sqlite, sqlite.WithClock(now))
		if err != nil {
			return nil, err
		}
		store, closeStore = db, db.Close
	}
	l, err := metering.Open(ctx, metering.Config{Store: store, Lease: c.lease, Patience: patience, Log: log})
	if err != nil {
		return nil, errors.Join(err, closeStore())
	}
	return l, nil
}

// stallAfter is how late a timer may be before the teller says that it stood
// still.
const stallAfter = 300 * time.Millisecond

// watchStalls tells the player when this process did not run: a busy machine is
// no fault of the ledger's.
func (t *teller) watchStalls() {
	const period = 100 * time.Millisecond
	for last := time.Now(); ; {
		time.Sleep(period)
		now := time.Now()
		if late := now.Sub(last) - period; late > stallAfter {
			t.send(reply{Stall: late.Microseconds()})
		}
		last = now
	}
}

func (t *teller) send(r reply) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.out.Encode(r) // the player is gone, and this process ends with it
}

func (t *teller) read(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, "teller:", err)
			os.Exit(1)
		}
		if r.Kind == history.Report { // no I/O, and in order
			t.send(t.answer(r))
			continue
		}
		go func() { t.send(t.answer(r)) }()
	}
	os.Exit(0) // the player has left
}

func (t *teller) answer(r request) reply {
	out := reply{ID: r.ID, Status: history.OK}
	if r.Kind == askClock { // also before the store is open
		t.offset.Store(r.Amount * int64(time.Microsecond))
		return out
	}
	l := t.ledger.Load()
	if l == nil {
		out.Status, out.Reason, out.Text = history.Fail, history.Busy, "the store is not open yet"
		return out
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Within)*time.Millisecond)
	defer cancel()
	if err := t.do(ctx, l, &r, &out); err != nil {
		out.Status, out.Reason = judge(err, &out.Answer)
		out.Text = err.Error()
	}
	return out
}

// do carries out one request.
func (t *teller) do(ctx context.Context, l *metering.Ledger, r *request, out *reply) (err error) {
	payment := metering.Deposit{Hash: paymentHash(r.Payment), Account: accountID(r.Account), Amount: l402.Msat(r.Amount)}
	var credited l402.Msat
	switch r.Kind {
	case history.Deposit:
		credited, err = l.Deposit(ctx, payment)
		out.Answer.Credited = int64(credited)
	case history.Credit:
		credited, err = l.CreditSettled(ctx, metering.Settled{Deposit: payment, Node: r.Node, Index: r.Index,
			Cursor: paymentHash(r.Last), At: time.Now()})
		out.Answer.Credited = int64(credited)
	case history.Reserve:
		return t.reserve(ctx, l, r, out)
	case history.Extend:
		if h := t.hold(r.Hold); h != nil {
			return h.Extend(ctx, l402.Msat(r.Amount))
		}
		return metering.ErrEnded
	case history.Report:
		if h := t.hold(r.Hold); h != nil {
			h.Progress(usage(r.Amount), metering.SourceRunning)
		}
	case history.Settle:
		return t.settle(ctx, r, out)
	case history.Balance:
		return balance(ctx, l, r, out)
	case askCursor:
		var c metering.CursorRow
		c, _, err = l.Cursor(ctx, r.Node)
		out.Index, out.Hash = c.Index, c.Hash.String()
	case askRestart:
		return l.AdvanceCursor(ctx, metering.CursorRow{Node: r.Node, Index: r.Index, Hash: paymentHash(r.Last)}, true)
	default:
		return fmt.Errorf("no such operation: %q", r.Kind)
	}
	return err
}

func (t *teller) hold(name string) *metering.Hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds[name]
}

func (t *teller) reserve(ctx context.Context, l *metering.Ledger, r *request, out *reply) error {
	ask := metering.Reservation{ID: holdID(r.Hold), Account: accountID(r.Account), Chain: chainID(r.Budgets),
		Amount:  l402.Msat(r.Amount),
		Service: "inference", Model: "m", Rates: rates}
	for i, name := range r.Budgets {
		ask.Budgets = append(ask.Budgets, l402.Budget{ID: budgetID(name), Label: name, Limit: l402.Msat(r.Limits[i])})
	}
	if r.Key != "" {
		ask.Idempotency = &metering.Idempotency{Key: keyID(r.Key), Body: keyID("body of " + r.Key)}
	}
	if r.Payment != "" {
		ask.Deposit = &metering.Deposit{Hash: paymentHash(r.Payment), Account: ask.Account, Amount: l402.Msat(r.Paid)}
	}
	h, err := l.Reserve(ctx, ask)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.holds[r.Hold] = h
	t.mu.Unlock()
	out.Answer.Available = int64(h.Available())
	return nil
}

func (t *teller) settle(ctx context.Context, r *request, out *reply) error {
	h := t.hold(r.Hold)
	if h == nil {
		return metering.ErrEnded
	}
	s := metering.Settlement{Usage: usage(r.Amount), Source: metering.SourceReported, Outcome: metering.OutcomeComplete}
	if r.Amount == 0 {
		s = metering.Settlement{Source: metering.SourceNone, Outcome: metering.OutcomeClientGone}
	}
	e, err := h.Settle(ctx, s)
	if err != nil {
		return err
	}
	out.Answer.Charged, out.Answer.Provisional, out.Answer.Available = int64(e.Charged), e.Provisional, int64(e.Available)
	return nil
}

func balance(ctx context.Context, l *metering.Ledger, r *request, out *reply) error {
	b, err := l.Balance(ctx, accountID(r.Account), nil)
	out.Answer = history.Answer{Available: int64(b.Available), Held: int64(b.Held), Deposited: int64(b.Deposited),
		Charged: int64(b.Charged)}
	return err
}

// judge says what an error of the ledger means to its caller.
func judge(err error, a *history.Answer) (history.Status, string) {
	var short *metering.InsufficientError
	var twice *metering.DuplicateError
	switch {
	case errors.As(err, &short):
		a.Available, a.Credited = int64(short.Available), int64(short.Credited)
		return history.Fail, history.Insufficient
	case errors.As(err, &twice):
		if twice.Entry != nil {
			a.First, a.Charged = twice.Entry.ID.String(), int64(twice.Entry.Charged)
		}
		return history.Fail, history.Duplicate
	case errors.Is(err, metering.ErrSwept):
		return history.Fail, history.Swept
	case errors.Is(err, metering.ErrEnded):
		return history.Fail, history.Ended
	case errors.Is(err, metering.ErrBusy):
		return history.Fail, history.Busy
	case errors.Is(err, metering.ErrForeignDeposit):
		return history.Fail, history.Foreign
	case errors.Is(err, metering.ErrRejected):
		return history.Unknown, history.Rejected
	case errors.Is(err, metering.ErrUnavailable):
		return history.Unknown, history.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		return history.Unknown, history.Late
	}
	return history.Unknown, history.Other
}
