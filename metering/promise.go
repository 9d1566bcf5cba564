package metering

// Promise says what one setting of a store's database means for the ledger, in words for the operator.
type Promise struct {
	Setting string // for example "fsync=off"; "" when the sentence is not about one setting
	Means   string // whole sentences
	// Broken means that the ledger cannot keep its promise under this setting: acknowledged operations may be lost.
	// Means then says what the operator should do.
	Broken bool
}
