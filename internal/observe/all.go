package observe

import (
	"context"
	"net/http"
	"time"

	"sluice.example/sluice/pricing"
)

// All returns an Observer that tells each event to all observers, in order. It leaves out nil.
func All(observers ...Observer) Observer {
	var list all
	for _, o := range observers {
		if o != nil {
			list = append(list, o)
		}
	}
	return list
}

type all []Observer

var _ Observer = all(nil)

func (a all) Began(r *http.Request) context.Context {
	for _, o := range a {
		if ctx := o.Began(r); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
	}
	return r.Context()
}

func (a all) Ended(ctx context.Context, route string, status int) {
	for _, o := range a {
		o.Ended(ctx, route, status)
	}
}

func (a all) Panicked(ctx context.Context, path string, value any, stack []byte) {
	for _, o := range a {
		o.Panicked(ctx, path, value, stack)
	}
}

func (a all) Limited(ctx context.Context, level string) {
	for _, o := range a {
		o.Limited(ctx, level)
	}
}

func (a all) Refused(ctx context.Context, r Refusal) {
	for _, o := range a {
		o.Refused(ctx, r)
	}
}

func (a all) Challenged(ctx context.Context, c Challenge) {
	for _, o := range a {
		o.Challenged(ctx, c)
	}
}

func (a all) Paid(ctx context.Context, p Payment) {
	for _, o := range a {
		o.Paid(ctx, p)
	}
}

func (a all) FirstByte(ctx context.Context, model string, took time.Duration) {
	for _, o := range a {
		o.FirstByte(ctx, model, took)
	}
}

func (a all) FellBack(ctx context.Context, model, fallback string, why error) {
	for _, o := range a {
		o.FellBack(ctx, model, fallback, why)
	}
}

func (a all) BackendFailed(ctx context.Context, f Failure) {
	for _, o := range a {
		o.BackendFailed(ctx, f)
	}
}

func (a all) Overran(ctx context.Context, v Overrun) {
	for _, o := range a {
		o.Overran(ctx, v)
	}
}

func (a all) Settled(ctx context.Context, s Settlement) {
	for _, o := range a {
		o.Settled(ctx, s)
	}
}

func (a all) Delayed(ctx context.Context, requestID string, err error) {
	for _, o := range a {
		o.Delayed(ctx, requestID, err)
	}
}

func (a all) Lost(ctx context.Context, requestID string, err error) {
	for _, o := range a {
		o.Lost(ctx, requestID, err)
	}
}

func (a all) PriceMoved(ctx context.Context, e pricing.Epoch) {
	for _, o := range a {
		o.PriceMoved(ctx, e)
	}
}
