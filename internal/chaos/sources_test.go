package chaos

import (
	"testing"

	"sluice.example/sluice/internal/lab/proc"
)

// TestSources has go test run this package anew when the sources of the programs that
// its tests run have changed.
func TestSources(t *testing.T) {
	if err := proc.LookAtSources(); err != nil {
		t.Error(err)
	}
}
