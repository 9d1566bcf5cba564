//go:build race

package chaos

// raceFlags build the binaries as this test was built.
var raceFlags = []string{"-race"}

// raceMemory is how many times as much memory they may take for that (5 to 10,
// says go.dev/doc/articles/race_detector).
const raceMemory = 5
