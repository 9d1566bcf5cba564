//go:build !race

package chaos

// raceMemory is how many times as much memory gateways may take under the race detector.
const raceMemory = 1
