package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/internal/backoff"
)

const (
	// maxShared bounds how often one round trip tries tokens that other round trips bought, before
	// it buys a token itself.
	maxShared = 4
	// unknownGrace is how long after an intent the answer "unknown payment" of the wallet proves
	// nothing. In this time an order from a process that has died may still be on its way to the
	// wallet.
	unknownGrace = 15 * time.Second
	// openTimeout bounds the time for resolving intents when an origin is first used. The client
	// pays nothing at that moment, so it does no harm to stop.
	openTimeout = 5 * time.Second
	// doubtTimeout bounds how long the client asks for the outcome of a payment after the call of
	// Wallet.Pay returned an error.
	doubtTimeout = 5 * time.Second
	// orderMargin is how much longer than PaymentTimeout a call of Wallet.Pay may take.
	orderMargin = 15 * time.Second
)

// settleLeftovers resolves the intents that can be resolved without waiting for payments in flight.
func (c *Client) settleLeftovers(ctx context.Context, origin string) error {
	left, err := c.intentsOf(origin)
	if err != nil || len(left) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	unlock, err := c.cfg.Store.Lock(ctx, origin)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.resolveAll(ctx, origin, 0)
	return err
}

// obtain returns a token that this round trip has not tried yet. The token was bought by another
// round trip in the meantime, or by an earlier payment, or obtain pays for it now (paid is true).
// No other round trip can buy at this origin until the caller calls unlock, which it does once its
// next request is under way.
func (c *Client) obtain(ctx context.Context, o *offer, tried map[[32]byte]bool) (t Token, paid bool, unlock func(), err error) {
	unlock, err = c.cfg.Store.Lock(ctx, o.origin)
	if err != nil {
		return t, false, nil, err
	}
	t, shared, err := c.bought(ctx, o, tried)
	if err == nil && !shared {
		err = c.beyondDelegation(t, o)
	}
	if err == nil && !shared {
		t, err = c.buy(ctx, o, &unlock)
	}
	if err != nil {
		unlock()
		return Token{}, false, nil, err
	}
	return t, !shared, unlock, nil
}

// bought returns the newest token for the offer's service, or the newest token of the origin if
// there is none for the service. The bool reports whether the token is for the service and this
// round trip can still try it. The caller holds the origin's lock.
func (c *Client) bought(ctx context.Context, o *offer, tried map[[32]byte]bool) (Token, bool, error) {
	if _, err := c.resolveAll(ctx, o.origin, c.cfg.PaymentTimeout); err != nil {
		return Token{}, false, err
	}
	tokens, err := c.reload(o.origin)
	if err != nil {
		return Token{}, false, err
	}
	t, ok := pick(tokens, o.origin, o.token.Service)
	if !ok {
		t, _ = pick(tokens, o.origin, "")
	}
	return t, ok && !tried[t.digest()] && len(tried) < maxShared, nil
}

// buy pays an offer. The caller holds the origin's lock. buy may keep the lock for longer than the
// call, and then replaces *unlock.
func (c *Client) buy(ctx context.Context, o *offer, unlock *func()) (Token, error) {
	if err := o.accept(c.cfg.Network, c.cfg.MaxPerRequest, c.cfg.Now()); err != nil {
		return Token{}, err
	}
	if c.origin(o.origin).paid(o.decoded.Hash) {
		// The wallet would report the earlier payment as a success.
		return Token{}, invoiceErrorf("it was paid before, the server asks for it again")
	}
	if check, ok := ctx.Value(keyCheck).(func(context.Context) error); ok {
		if err := check(ctx); err != nil {
			return Token{}, err
		}
	}
	in := o.intent(c.cfg.MaxFee, c.cfg.Now())
	if err := c.cfg.Store.Begin(in, c.cfg.MaxTotal); err != nil {
		return Token{}, err
	}
	return c.order(ctx, in, unlock)
}

// order pays for an intent. The payment does not end with the request's context: once the wallet
// has the order, the client must record the outcome even if the caller waits no longer. In that
// case a goroutine takes over the lock and releases it at the end.
func (c *Client) order(ctx context.Context, in Intent, unlock *func()) (Token, error) {
	type result struct {
		t   Token
		err error
	}
	done := make(chan result, 1)
	background := context.WithoutCancel(ctx)
	go func() {
		t, err := c.pay(background, in)
		done <- result{t, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return Token{}, r.err
		}
		if f, ok := ctx.Value(keyOnPurchase).(func(Purchase)); ok {
			f(r.t.lastPurchase())
		}
		return r.t, nil
	case <-ctx.Done():
		held := *unlock
		*unlock = func() {}
		go func() {
			if r := <-done; r.err != nil {
				c.cfg.Log.Warn("payment of an abandoned request", "origin", in.Origin, "error", r.err)
			}
			held()
		}()
		return Token{}, &PaymentError{Hash: in.Hash, InFlight: true, Err: ctx.Err()}
	}
}

// pay asks the wallet to pay and records the outcome.
func (c *Client) pay(ctx context.Context, in Intent) (Token, error) {
	c.cfg.Log.Info("paying", "origin", in.Origin, "payment_hash", in.Hash, "amount_msat", in.Amount, "fee_limit_msat", in.FeeLimit)
	orderCtx, cancel := context.WithTimeout(ctx, c.cfg.PaymentTimeout+orderMargin)
	defer cancel()
	paid, err := c.cfg.Wallet.Pay(orderCtx, PayRequest{
		Invoice: in.Invoice, Hash: in.Hash, Amount: in.Amount, FeeLimit: in.FeeLimit, Timeout: c.cfg.PaymentTimeout,
	})
	switch {
	case err == nil:
		return c.keep(in, paid)
	case errors.Is(err, ErrPaymentFailed):
		return Token{}, c.drop(in, err)
	}
	// It is not known whether the wallet received the order. pay asks once more before it reports.
	askCtx, cancelAsk := context.WithTimeout(ctx, doubtTimeout)
	defer cancelAsk()
	t, found, doubt := c.resolve(askCtx, in, min(doubtTimeout, c.cfg.PaymentTimeout))
	switch {
	case doubt != nil:
		return Token{}, &PaymentError{Hash: in.Hash, InFlight: true, Err: err}
	case !found:
		return Token{}, &PaymentError{Hash: in.Hash, Err: err}
	}
	return t, nil
}

// drop deletes the intent of a payment that failed, and returns cause as a *PaymentError.
func (c *Client) drop(in Intent, cause error) error {
	if err := c.cfg.Store.Drop(in); err != nil {
		cause = errors.Join(cause, err)
	}
	return &PaymentError{Hash: in.Hash, Err: cause}
}

// resolveAll resolves every intent of an origin and returns the tokens that were bought. wait
// bounds how long it waits for each payment in flight. The caller holds the origin's lock.
func (c *Client) resolveAll(ctx context.Context, origin string, wait time.Duration) ([]Token, error) {
	intents, err := c.intentsOf(origin)
	if err != nil {
		return nil, err
	}
	var bought []Token
	for _, in := range intents {
		t, found, err := c.resolve(ctx, in, wait)
		if err != nil {
			return nil, err
		}
		if found {
			bought = append(bought, t)
		}
	}
	return bought, nil
}

// resolve finds the outcome of an intent. If the payment succeeded, it returns the token and found
// is true. If the payment failed, the intent is deleted and found is false. A *PaymentError with
// InFlight means that the outcome is still unknown after wait.
func (c *Client) resolve(ctx context.Context, in Intent, wait time.Duration) (t Token, found bool, err error) {
	begun := time.Now()
	for pauses := backoff.New(50*time.Millisecond, time.Second); ; {
		state, paid, err := c.cfg.Wallet.Track(ctx, in.Hash)
		switch {
		case err != nil:
			err = fmt.Errorf("ask the wallet: %w", err)
			wait = min(wait, doubtTimeout) // do not wait longer for a wallet that cannot be reached
		case state == Succeeded:
			t, err := c.keep(in, paid)
			return t, err == nil, err
		case state == Failed, state == Unknown && c.tooLate(in):
			return Token{}, false, c.cfg.Store.Drop(in)
		case state == Unknown:
			err = errors.New("the wallet may not have received the order yet")
		default:
			err = errors.New("the wallet is still trying")
		}
		pause := pauses.Next()
		if time.Since(begun)+pause > wait {
			return Token{}, false, &PaymentError{Hash: in.Hash, InFlight: true, Err: err}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Token{}, false, &PaymentError{Hash: in.Hash, InFlight: true, Err: ctx.Err()}
		}
	}
}

// tooLate reports whether a payment that the wallet does not know can no longer begin. A wallet
// does not pay an expired invoice, and an order reaches the wallet within unknownGrace or not at
// all.
func (c *Client) tooLate(in Intent) bool {
	now := c.cfg.Now()
	return !now.Before(in.ExpiresAt) || now.Sub(in.At) > unknownGrace
}

// keep stores the token of a successful payment. The store keeps the intent until the token is
// stored, so that a failure does not lose the money.
func (c *Client) keep(in Intent, paid Paid) (Token, error) {
	doubt := func(err error) error { return &PaymentError{Hash: in.Hash, InFlight: true, Err: err} }
	if paid.Preimage.Hash() != in.Hash {
		return Token{}, doubt(errors.New("the wallet returned a preimage that does not prove the payment"))
	}
	t, err := describe(in.Origin, in.Macaroon)
	if err != nil {
		return Token{}, doubt(fmt.Errorf("macaroon of the intent: %w", err))
	}
	t.Preimage = paid.Preimage
	t.CreatedAt = in.At
	tokens, err := c.cfg.Store.Tokens()
	if err != nil {
		return Token{}, doubt(err)
	}
	for _, old := range tokens {
		if old.Origin == t.Origin && old.Name() == t.Name() {
			t.CreatedAt, t.Spent, t.Deposits = old.CreatedAt, old.Spent, old.Deposits
		}
	}
	t.UpdatedAt = c.cfg.Now()
	t = t.with(Deposit{PaymentHash: in.Hash, Amount: in.Amount, Fee: paid.Fee, At: t.UpdatedAt})
	if err := c.cfg.Store.Commit(in, t); err != nil {
		return Token{}, doubt(fmt.Errorf("paid, but not stored: %w", err))
	}
	c.cfg.Log.Info("paid", "origin", in.Origin, "payment_hash", in.Hash, "amount_msat", in.Amount, "fee_msat", paid.Fee, "token_id", t.ID)
	c.origin(in.Origin).remember(t)
	return t, nil
}
