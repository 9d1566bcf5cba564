//go:build race

package chaos

// raceMemory is how many times as much memory gateways may take under the race detector (5 to 10,
// says go.dev/doc/articles/race_detector).
const raceMemory = 5
