//go:build race

package e2e

// raceFlags build the binaries as this test was built.
var raceFlags = []string{"-race"}
