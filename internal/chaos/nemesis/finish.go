package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/metering"
)

// healLimit bounds how long the system may take to answer once everything is
// whole.
const healLimit = 30 * time.Second

// finish heals, waits until all is quiet, and takes the last looks.
func (p *play) finish(working *sync.WaitGroup, stopWatching func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	defer stopWatching()
	if err := p.heal(ctx); err != nil {
		return err
	}
	if err := p.leave(working); err != nil {
		return err
	}
	p.record.with(func(h *history.History) { h.Healed = p.record.now() })
	r, err := p.site.open(ctx)
	if err != nil {
		return fmt.Errorf("open the ledger for the last look: %w", err)
	}
	defer r.close()
	if err := p.quiet(ctx, r); err != nil {
		return err
	}
	stopWatching()
	before, err := p.look(ctx, r)
	if err != nil {
		return err
	}
	p.record.with(func(h *history.History) { h.Before = *before })
	p.presentAll(before)
	after, err := p.look(ctx, r)
	if err != nil {
		return err
	}
	p.record.with(func(h *history.History) { h.After = *after })
	for _, one := range p.replicas {
		for _, a := range p.accounts {
			p.do(one, request{Within: 3000, Op: history.Op{Client: "last", Kind: history.Balance, Account: a.name}})
		}
	}
	return nil
}

// leave waits until no client has an open request.
func (p *play) leave(working *sync.WaitGroup) error {
	left := make(chan struct{})
	go func() {
		working.Wait()
		for p.busy.Load() > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		close(left)
	}()
	select {
	case <-left:
		return nil
	case <-time.After(healLimit):
		return p.stuck("a request has no end")
	}
}

// heal undoes what may be left of the faults and waits until each teller answers.
func (p *play) heal(ctx context.Context) error {
	if err := p.site.heal(ctx); err != nil {
		return fmt.Errorf("heal the database: %w", err)
	}
	for _, r := range p.replicas {
		r.signal(syscall.SIGCONT)
		if r.wire != nil {
			r.wire.Heal()
		}
		if r.now() == "" {
			if err := r.start(); err != nil {
				return err
			}
		}
	}
	p.record.note("everything is whole", nil)
	deadline := time.Now().Add(healLimit)
	for _, r := range p.replicas {
		for p.do(r, request{Within: 1500, Op: history.Op{Client: "last", Kind: history.Balance,
			Account: p.accounts[0].name}}).Status != history.OK {
			if time.Now().After(deadline) {
				return p.stuck(r.name + " does not answer")
			}
			time.Sleep(30 * time.Millisecond)
		}
	}
	return nil
}

// errStuck ends a schedule whose system did not recover. It is a finding.
var errStuck = errors.New("the system did not recover")

func (p *play) stuck(what string) error {
	p.record.with(func(h *history.History) {
		h.Stuck = append(h.Stuck, fmt.Sprintf("%s %s after everything was whole", what, healLimit))
	})
	return errStuck
}

// quietLimit is when waiting for the last hold ends: twice what is promised.
const quietLimit = 4*lease + 6*sweepEvery

// quiet waits until no hold is open.
func (p *play) quiet(ctx context.Context, r *reader) error {
	for deadline := time.Now().Add(quietLimit); ; time.Sleep(30 * time.Millisecond) {
		report, err := r.Audit(ctx)
		if err != nil {
			return fmt.Errorf("last audit: %w", err)
		}
		if report.OpenHolds == 0 {
			p.record.with(func(h *history.History) { h.NoHolds = p.record.now() })
			return nil
		}
		if time.Now().After(deadline) {
			p.record.note("holds are still open", report)
			return nil
		}
	}
}

// look reads everything that the ledger says.
func (p *play) look(ctx context.Context, r *reader) (*history.State, error) {
	s := &history.State{Accounts: map[string]history.Account{}, Deposits: map[string]int64{}}
	report, err := r.Audit(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	s.Mismatches = report.Mismatches
	for _, a := range p.accounts {
		b, err := r.Balance(ctx, accountID(a.name), nil)
		if err != nil {
			return nil, err
		}
		s.Accounts[a.name] = history.Account{Available: int64(b.Available), Held: int64(b.Held),
			Deposited: int64(b.Deposited), Charged: int64(b.Charged)}
		if err := p.lines(ctx, r, a.name, s); err != nil {
			return nil, err
		}
		for _, i := range a.all() {
			d, found, err := r.LookupDeposit(ctx, paymentHash(i.payment))
			if err != nil {
				return nil, err
			}
			if found {
				s.Deposits[i.payment] = int64(d.Credited)
			}
		}
	}
	s.At = p.record.now()
	return s, nil
}

// lines reads all charges of an account.
func (p *play) lines(ctx context.Context, r *reader, account string, s *history.State) error {
	for q := (metering.EntryQuery{Account: accountID(account), Limit: 1000}); ; {
		page, next, err := r.Entries(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range page {
			s.Charges = append(s.Charges, history.Charge{Hold: p.holdName(e.ID), Account: account, Charged: int64(e.Charged),
				Outcome: string(e.Outcome), Provisional: e.Provisional})
		}
		if next == "" {
			return nil
		}
		q.Before = next
	}
}

// presentAll presents every payment again: first where it was taken before, so
// that a teller that only remembers it is found out, with a request for all that
// must be there then. Then every teller is asked for all of it.
func (p *play) presentAll(before *history.State) {
	knows := p.takers()
	c := &client{play: p, name: "last", rng: pick()}
	for _, a := range p.accounts {
		var sum int64
		for _, i := range a.all() {
			r := knows[i.payment]
			if r == nil {
				r = p.replicas[c.rng.IntN(len(p.replicas))]
			}
			c.present(r, i)
			sum += i.amount
		}
		for _, r := range p.replicas {
			if left := sum - before.Accounts[a.name].Charged; left > 0 {
				p.spend(c, r, a, left)
			}
		}
	}
}

// spend holds all that is left on an account and gives it back.
func (p *play) spend(c *client, r *replica, a *account, left int64) {
	if op := c.reserve(r, ask{account: a, bound: left}); op.Status == history.OK {
		p.settle(r, c.of(op, history.Settle, 0, 1500))
	}
}

// takers finds, for each payment, a teller that took it and has run ever since.
func (p *play) takers() map[string]*replica {
	p.record.mu.Lock()
	defer p.record.mu.Unlock()
	all := map[string]*replica{}
	for _, op := range p.record.ops {
		if op.Payment == "" || op.Status != history.OK || op.Kind == history.Credit {
			continue
		}
		for _, r := range p.replicas {
			if all[op.Payment] == nil && r.now() == op.Teller {
				all[op.Payment] = r
			}
		}
	}
	return all
}
