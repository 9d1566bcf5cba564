//go:build race

package chaos

// raceFlags build the binaries as this test was built.
var raceFlags = []string{"-race"}
