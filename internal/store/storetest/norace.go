//go:build !race

package storetest

// modelOperations is how many random operations the model is tested with, at
// least.
const modelOperations = 10_000
