//go:build !race

package storetest

// modelOperations is the least number of random operations of testModel.
const modelOperations = 10_000
