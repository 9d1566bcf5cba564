package observe

import (
	"context"
	"net/http"
	"time"

	"sluice.example/sluice/pricing"
)

// None is an Observer that ignores all events. An Observer for only some events embeds None.
type None struct{}

var _ Observer = None{}

// Began returns the context of the request unchanged.
func (None) Began(r *http.Request) context.Context { return r.Context() }

// Ended does nothing. The other methods do nothing either.
func (None) Ended(context.Context, string, int)               {}
func (None) Panicked(context.Context, string, any, []byte)    {}
func (None) Limited(context.Context, string)                  {}
func (None) Refused(context.Context, Refusal)                 {}
func (None) Challenged(context.Context, Challenge)            {}
func (None) Paid(context.Context, Payment)                    {}
func (None) FirstByte(context.Context, string, time.Duration) {}
func (None) FellBack(context.Context, string, string, error)  {}
func (None) BackendFailed(context.Context, Failure)           {}
func (None) Overran(context.Context, Overrun)                 {}
func (None) Settled(context.Context, Settlement)              {}
func (None) Delayed(context.Context, string, error)           {}
func (None) Lost(context.Context, string, error)              {}
func (None) PriceMoved(context.Context, pricing.Epoch)        {}
