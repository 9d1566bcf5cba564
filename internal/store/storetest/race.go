//go:build race

package storetest

// modelOperations is the least number of random operations of testModel. It is smaller here, because the race detector
// makes each operation about five times slower and looks for other defects.
const modelOperations = 2_000
