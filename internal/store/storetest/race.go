//go:build race

package storetest

// modelOperations is how many random operations the model is tested with, at
// least. The race detector makes each of them about five times slower, and it
// looks for something else.
const modelOperations = 2_000
