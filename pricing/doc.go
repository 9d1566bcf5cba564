// Package pricing says what a request costs, and how that follows the load. It
// is pure: no I/O, no clock; a Board holds the prices in force, a Controller
// what it needs to decide the next one.
//
// The happy path: a Controller, or the owner, publishes an Epoch per model
// on a Board. A request reads the epoch in force once, bounds its own usage
// from above, and takes a Quote, which is what gets reserved:
//
//	epoch, ok := board.Current("llama-3.1-8b")
//	usage := pricing.Units{pricing.InputTokens: 900, pricing.OutputTokens: 256, pricing.Calls: 1}
//	quote, err := epoch.Quote(usage, expires)
//
// When the answer has ended, the usage that was measured is charged at the
// same rates, whatever the board says by then:
//
//	cost, err := quote.Rates.Cost(measured)
//
// Prices that follow the load: once per interval the pool's Load becomes a
// pressure, and a Controller decides the multiplier of the rate card:
//
//	params := pricing.DefaultParams()
//	control := pricing.NewController(params, pricing.State{})
//	pressure, ok := params.Parts.Pressure(load)
//	decision := control.Step(pricing.Observation{At: now, Pressure: pressure, OK: ok})
//	rates := base.Scale(decision.Multiplier)
//
// A cost is the exact rational sum of its parts, rounded up once, at the end,
// to a whole millisatoshi. A usage within the bound never costs more than the
// bound.
package pricing
