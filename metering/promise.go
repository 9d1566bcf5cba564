package metering

// Promise is what the settings of a store's database mean for the ledger, in
// words for the operator.
type Promise struct {
	Setting string // "fsync=off"; empty where the sentence is about no single one
	Means   string // whole sentences
	// Broken: the ledger's promise, that what was answered is not lost, does not
	// hold under this setting. Means then says what to do.
	Broken bool
}
