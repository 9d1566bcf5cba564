// Package labtest has helpers for tests of running gateways.
package labtest

import (
	"testing"
	"time"
)

// Eventually calls check again and again until check returns nil, for at most limit. After limit it
// ends the test with check's last error. what completes the message "not within LIMIT: …".
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
