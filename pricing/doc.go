// Package pricing says what a request costs. It is pure: no I/O, no clock, no
// state but the Board, which holds the prices in force.
//
// The happy path: whoever decides prices publishes an Epoch per model on a
// Board. A request reads the epoch in force once, bounds its own usage from
// above, and takes a Quote, which is what gets reserved:
//
//	epoch, ok := board.Current("llama-3.1-8b")
//	quote, err := epoch.Quote(pricing.Usage{InputTokens: 900, OutputTokens: 256, Calls: 1}, expires)
//
// When the answer has ended, the usage that was measured is charged at the
// same rates, whatever the board says by then:
//
//	cost, err := quote.Rates.Cost(measured)
//
// A cost is the exact rational sum of its parts, rounded up once, at the end,
// to a whole millisatoshi. A usage within the bound never costs more than the
// bound.
package pricing
