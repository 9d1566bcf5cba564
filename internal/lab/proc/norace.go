//go:build !race

package proc

// RaceDetector says whether this program was built with the race detector.
const RaceDetector = false

// RaceFlags make the Go tool build a program as this one was built.
var RaceFlags []string
