//go:build !race

package chaos

// raceFlags build the binaries as this test was built.
var raceFlags []string

// raceMemory is how many times as much memory they may take for that.
const raceMemory = 1
