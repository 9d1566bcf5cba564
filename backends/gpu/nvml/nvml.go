// Package nvml reads NVIDIA GPUs through their driver's management library
// (NVML): a telemetry.Sampler for the machine it runs on.
//
//	sampler, err := nvml.Open(nvml.Config{Log: log})
//	if errors.Is(err, nvml.ErrUnavailable) { … say so once, go on without }
//	defer sampler.Close()
//	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: sampler, Every: time.Second})
//	go feed.Run(ctx)
//
// It reads every GPU and, under MIG, every instance; with GPM (Hopper and
// newer) also how much of the SMs, tensor cores and memory bandwidth was used
// between two samples. Readings are passed on as they are: a Feed judges
// them.
//
// # What can go wrong
//
// A function that the library lacks would end the process when called, so each
// is looked up before its first use, and what it would tell is "not reported".
// A GPU that is lost is left out of the reading. When the driver goes away, a
// sample is an error. In both cases the library is opened anew, at growing
// intervals of up to a minute. A call that hangs, hangs Sample with it.
//
// A process can load one NVML library, and never lets go of it: the binding
// resolves its functions for the whole process. A driver that was replaced by
// another version needs a new process; the error says so.
//
// The binding needs cgo and a program linked with lazy binding, the default of
// the Go toolchain; where the C compiler's default differs, build with
// -ldflags=-extldflags=-Wl,-z,lazy. It resolves nothing on musl. Without
// cgo, Open returns ErrUnavailable.
package nvml

import (
	"errors"
	"log/slog"
	"time"
)

// DefaultLibrary is loaded when a Config names none, by the dynamic loader's
// rules.
const DefaultLibrary = "libnvidia-ml.so.1"

// ErrUnavailable says that NVML cannot be read here: built without cgo, no
// library, no driver, no GPU. The text says which.
var ErrUnavailable = errors.New("NVML is not available")

// Config describes a Sampler.
type Config struct {
	// Library is the path or name of the library. Empty: DefaultLibrary.
	Library string
	Log     *slog.Logger     // nil: nothing is logged
	Clock   func() time.Time // nil: time.Now
}
