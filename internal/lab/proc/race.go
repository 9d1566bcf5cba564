//go:build race

package proc

// RaceDetector says whether this program was built with the race detector.
const RaceDetector = true

// RaceFlags make the Go tool build a program as this one was built. The detector does not look into SQLite itself,
// which is C translated into Go: SQLite has its own locks, and the detector makes it some twenty times slower. The code
// around SQLite is looked into.
var RaceFlags = []string{"-race", "-gcflags=modernc.org/...=-race=false"}
