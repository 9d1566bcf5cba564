//go:build !cgo || !linux

package nvml

import (
	"context"
	"fmt"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// Sampler reads nothing, because this program was built without cgo or not for Linux.
type Sampler struct{}

// Open returns ErrUnavailable.
func Open(Config) (*Sampler, error) {
	return nil, errBuild
}

var errBuild = fmt.Errorf("%w: this program was built without cgo, or not for Linux", ErrUnavailable)

// Sample returns ErrUnavailable.
func (*Sampler) Sample(context.Context) (telemetry.Reading, error) {
	return telemetry.Reading{}, errBuild
}

// Close does nothing.
func (*Sampler) Close() {}
