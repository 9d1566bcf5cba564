// Package pricing computes what a request costs, and how that follows the load. The package does no I/O
// and reads no clock. A Board holds the prices in force. A Controller holds what it needs to decide the
// next price.
//
// In the usual case a Controller, or the owner, publishes an Epoch for each model on a Board. The
// gateway reads the epoch in force once per request, computes an upper bound of the request's usage,
// and takes a Quote. The quote's bound is the amount that the gateway reserves:
//
//	epoch, ok := board.Current("llama-3.1-8b")
//	usage := pricing.Units{pricing.InputTokens: 900, pricing.OutputTokens: 256, pricing.Calls: 1}
//	quote, err := epoch.Quote(usage, expires)
//
// After the answer has ended, the gateway charges the measured usage at the rates of the quote, even if
// the board has newer rates by then:
//
//	cost, err := quote.Rates.Cost(measured)
//
// For prices that follow the load, once per interval the pool's Load becomes a pressure, and a
// Controller decides the multiplier of the rate card:
//
//	params := pricing.DefaultParams()
//	control := pricing.NewController(params, pricing.State{})
//	pressure, ok := params.Parts.Pressure(load)
//	decision := control.Step(pricing.Observation{At: now, Pressure: pressure, OK: ok})
//	rates := base.Scale(decision.Multiplier)
//
// A cost is the exact rational sum of its parts. It is rounded up once, at the end, to a whole msat. A
// usage within the bound never costs more than the bound.
package pricing
