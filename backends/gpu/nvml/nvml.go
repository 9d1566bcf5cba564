// Package nvml reads NVIDIA GPUs through the management library of their driver (NVML). It provides a
// telemetry.Sampler for the machine on which it runs.
//
//	sampler, err := nvml.Open(nvml.Config{Log: log})
//	if errors.Is(err, nvml.ErrUnavailable) { … say so once, go on without }
//	defer sampler.Close()
//	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: sampler, Every: time.Second})
//	go feed.Run(ctx)
//
// The sampler reads every GPU and, under MIG, every instance. With GPM (Hopper and newer) it also reads
// how much of the SMs, tensor cores and memory bandwidth was used between two samples. The sampler
// passes readings on without a check, because a Feed checks them.
//
// # What can go wrong
//
// A call of a function that the library lacks would end the process. So the package looks up each
// function before its first use, and reports the value of a missing function as "not reported". A
// reading leaves out a GPU that is lost. If the driver goes away, Sample returns an error. In both
// cases the sampler opens the library again, at growing intervals of up to a minute. If a call of the
// driver hangs, Sample hangs too.
//
// A process can load only one NVML library, and can never unload it, because the binding resolves the
// library's functions for the whole process. If the driver is replaced by another version, the process
// must be restarted. The error says so.
//
// The binding needs cgo and a program that is linked with lazy binding, which is the default of the Go
// toolchain. If the C compiler has another default, build with -ldflags=-extldflags=-Wl,-z,lazy. On
// musl the binding resolves no function. Without cgo, Open returns ErrUnavailable.
package nvml

import (
	"errors"
	"log/slog"
	"time"
)

// DefaultLibrary is the library that is loaded if a Config names none. The dynamic loader searches for
// it.
const DefaultLibrary = "libnvidia-ml.so.1"

// ErrUnavailable says that NVML cannot be read here. The reason is in the error's text: built without
// cgo, no library, no driver, or no GPU.
var ErrUnavailable = errors.New("NVML is not available")

// Config describes a Sampler.
type Config struct {
	// Library is the path or name of the library. Empty means DefaultLibrary.
	Library string
	Log     *slog.Logger     // nil means that nothing is logged
	Clock   func() time.Time // nil means time.Now
}
