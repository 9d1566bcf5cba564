package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/pricing"
)

// prices is what this process remembers about prices: the leader, the watchers and the reported loads. No file keeps
// them, because only this process serves the database.
type prices struct {
	mu       sync.Mutex
	lead     *lead // nil: no caller leads
	watchers []chan struct{}
	loads    map[loadKey]pricer.Report
}

type loadKey struct{ replica, model string }

// changed wakes all watchers.
func (p *prices) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.watchers {
		select {
		case w <- struct{}{}:
		default: // the watcher has not yet taken the last signal
		}
	}
}

// WatchPrices calls changed once at the start and after each change that this process makes.
func (d *DB) WatchPrices(ctx context.Context, changed func()) error {
	w := make(chan struct{}, 1)
	w <- struct{}{}
	p := &d.prices
	p.mu.Lock()
	p.watchers = append(p.watchers, w)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watchers = slices.DeleteFunc(p.watchers, func(x chan struct{}) bool { return x == w })
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.closed:
			return errors.New("sqlite: closed")
		case <-w:
			changed()
		}
	}
}

// PublishEpoch appends a price.
func (d *DB) PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	return d.publish(ctx, e, func() error { return nil })
}

// publish appends a price, unless allowed fails. It calls allowed with d.mu locked.
func (d *DB) publish(ctx context.Context, e pricing.Epoch, allowed func() error) (pricing.Epoch, error) {
	rates, err := json.Marshal(e.Rates)
	if err != nil {
		return e, fmt.Errorf("encode rates: %w", err)
	}
	var refused error
	err = d.write(ctx, true, func(w *writer) (bool, error) {
		if refused = allowed(); refused != nil {
			return false, nil
		}
		s := w.insertEpoch.text(e.Model).text(string(rates)).float(e.Multiplier).float(e.Signal).text(e.BoundBy).int(e.At.UnixMicro())
		if _, err := s.step(); err != nil {
			return false, err
		}
		e.ID = s.colInt(0)
		return true, s.run()
	})
	if err == nil && refused == nil {
		d.prices.changed()
	}
	return e, errors.Join(refused, err)
}

// lead is the lead of prices within this process.
type lead struct{ d *DB }

// LeadPrices takes the lead, or fails with pricer.ErrNotLeader when another caller in this process leads. The lock file
// keeps all other processes out.
func (d *DB) LeadPrices(context.Context) (pricer.Lead, error) {
	if d.lock == nil {
		return nil, errReadOnly
	}
	p := &d.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lead != nil {
		return nil, pricer.ErrNotLeader
	}
	p.lead = &lead{d}
	return p.lead, nil
}

func (l *lead) Check(context.Context) error { return l.held() }

func (l *lead) held() error {
	p := &l.d.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lead != l {
		return pricer.ErrNotLeader
	}
	return nil
}

func (l *lead) Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	return l.d.publish(ctx, e, l.held)
}

func (l *lead) Release() error {
	p := &l.d.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lead == l {
		p.lead = nil
	}
	return nil
}

// SetOverride fixes the multiplier of a model. A multiplier of 0 removes the override.
func (d *DB) SetOverride(ctx context.Context, model string, multiplier float64) error {
	err := d.write(ctx, true, func(w *writer) (bool, error) {
		if multiplier == 0 {
			return true, w.deleteOverride.text(model).run()
		}
		return true, w.saveOverride.text(model).float(multiplier).int(d.now()).run()
	})
	if err == nil {
		d.prices.changed()
	}
	return err
}

// Overrides returns the fixed multipliers by model.
func (d *DB) Overrides(ctx context.Context) (map[string]float64, error) {
	m := make(map[string]float64)
	err := d.read(ctx, func(r *reader) error {
		return r.query(`SELECT model, multiplier FROM price_overrides`, nil, func(s *stmt) error {
			m[s.colText(0)] = s.colFloat(1)
			return nil
		})
	})
	return m, err
}

const epochColumns = `id, model, rates, multiplier, signal, bound_by, at`

func readEpoch(s *stmt) (pricing.Epoch, error) {
	e := pricing.Epoch{ID: s.colInt(0), Model: s.colText(1), Multiplier: s.colFloat(3), Signal: s.colFloat(4),
		BoundBy: s.colText(5), At: time.UnixMicro(s.colInt(6)).UTC()}
	if err := json.Unmarshal(s.colRaw(2), &e.Rates); err != nil {
		return e, fmt.Errorf("rates of price epoch %d: %w", e.ID, err)
	}
	return e, nil
}

func (d *DB) epochs(ctx context.Context, sql string, bind func(*stmt)) (list []pricing.Epoch, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT `+epochColumns+` FROM price_epochs `+sql, bind, func(s *stmt) error {
			e, err := readEpoch(s)
			list = append(list, e)
			return err
		})
	})
	return list, err
}

// LatestEpochs returns the newest price of each model. It steps from model to model through the index, so its cost does
// not grow with the number of epochs.
func (d *DB) LatestEpochs(ctx context.Context) ([]pricing.Epoch, error) {
	return d.epochs(ctx, `WHERE id IN (
		WITH RECURSIVE m (model) AS (SELECT min(model) FROM price_epochs
			UNION ALL SELECT (SELECT min(model) FROM price_epochs WHERE model > m.model) FROM m WHERE m.model IS NOT NULL)
		SELECT (SELECT max(id) FROM price_epochs WHERE model = m.model) FROM m) ORDER BY id`, nil)
}

// Epochs returns the published prices that q selects.
func (d *DB) Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error) {
	sql, since := `WHERE id > ?1`, int64(0)
	if q.Model != "" {
		sql += ` AND model = ?3`
	}
	if !q.Since.IsZero() {
		sql, since = sql+` AND at >= ?4`, q.Since.UnixMicro()
	}
	return d.epochs(ctx, sql+` ORDER BY id LIMIT ?2`, func(s *stmt) {
		s.int(q.After).int(int64(q.Limit))
		if q.Model != "" || !q.Since.IsZero() {
			s.text(q.Model)
		}
		if !q.Since.IsZero() {
			s.int(since)
		}
	})
}

// Epoch returns one published price.
func (d *DB) Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error) {
	list, err := d.epochs(ctx, `WHERE id = ?`, func(s *stmt) { s.int(id) })
	if len(list) == 0 {
		return e, false, err
	}
	return list[0], true, err
}

// loadsKept is how long a load is kept that its replica does not replace.
const loadsKept = time.Hour

// ReportLoad remembers the loads that a replica reports.
func (d *DB) ReportLoad(_ context.Context, replica string, loads []pricer.Report) error {
	if d.lock == nil {
		return errReadOnly
	}
	now := d.clock().UTC()
	p := &d.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loads == nil {
		p.loads = make(map[loadKey]pricer.Report)
	}
	for k, m := range p.loads {
		if now.Sub(m.At) > loadsKept {
			delete(p.loads, k)
		}
	}
	for _, m := range loads {
		m.Replica, m.At = replica, now
		p.loads[loadKey{replica, m.Model}] = m
	}
	return nil
}

// Loads returns the remembered loads that are at most maxAge old.
func (d *DB) Loads(_ context.Context, maxAge time.Duration) (list []pricer.Report, err error) {
	now := d.clock()
	p := &d.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.loads {
		if now.Sub(m.At) <= maxAge {
			list = append(list, m)
		}
	}
	return list, nil
}

// CleanPrices deletes old epochs. ReportLoad drops old loads.
func (d *DB) CleanPrices(ctx context.Context, limit int) (n int, err error) {
	err = d.write(ctx, false, func(w *writer) (bool, error) {
		went, err := w.cleanEpochs.int(d.now() - pricer.EpochsKept.Microseconds()).int(int64(limit)).count()
		n = went
		return n > 0, err
	})
	return n, err
}
