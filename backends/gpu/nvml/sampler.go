//go:build cgo && linux

package nvml

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/backoff"
)

const (
	// listEvery is how often the devices are listed again. MIG instances come and go while the library
	// is open.
	listEvery = 5 * time.Second
	// The library is opened again after retryBase. The wait then doubles each time, up to retryMost.
	// The waits are long, because opening takes seconds on a machine whose driver unloads when nobody
	// uses it, and because it costs the other GPUs one GPM reading.
	retryBase, retryMost = time.Second, time.Minute
)

// Sampler reads the GPUs of this machine. Sample and Close are safe for concurrent use.
type Sampler struct {
	log   *slog.Logger
	clock func() time.Time

	mu       sync.Mutex
	lib      *library
	open     bool  // true between nvmlInit and nvmlShutdown
	err      error // why the library is not open
	said     bool  // the log says that the library is not open
	devices  []*device
	known    map[string]bool // GPUs by UUID; false means that the GPU is lost and the log says so
	xids     map[string]float64
	events   nvml.EventSet // nil means that there is no event set
	listedAt time.Time
	lost     bool // a GPU is lost, so the library is to be opened again at retryAt
	retryAt  time.Time
	pause    *backoff.Backoff
	scratch  nvml.GpmMetricsGetType
}

// Open loads the library and finds the GPUs. If that fails, Open returns ErrUnavailable with the
// reason.
func Open(cfg Config) (*Sampler, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	lib, err := load(cfg.Library)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s := &Sampler{log: cfg.Log, clock: cfg.Clock, lib: lib, known: map[string]bool{}, xids: map[string]float64{}, said: true,
		pause: backoff.New(retryBase, retryMost)}
	if err := s.start(s.clock()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.log.Info("reading GPUs through NVML", "driver", s.driver(), "gpus", len(s.known), "devices", len(s.devices))
	return s, nil
}

// Sample reads every device. The reading leaves out a GPU that is lost. An error says that no device
// could be read.
func (s *Sampler) Sample(ctx context.Context) (telemetry.Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if err := s.ready(now); err != nil {
		return telemetry.Reading{}, err
	}
	s.readXids()
	r := telemetry.Reading{Devices: make([]telemetry.Device, 0, len(s.devices))}
	for _, d := range s.devices {
		if d.lost {
			continue
		}
		// A call that hung may have used up the time.
		if err := ctx.Err(); err != nil {
			return telemetry.Reading{}, err
		}
		reading, worst := s.read(d, now)
		switch {
		case scopeOf(worst) == ofLibrary:
			return telemetry.Reading{}, s.fail(now, failure("read "+d.uuid, worst))
		case worst == nvml.SUCCESS:
			s.found(d)
			r.Devices = append(r.Devices, reading)
		case scopeOf(worst) == ofDevice || d.parent == nil:
			s.lose(d, now, worst)
		default: // a MIG instance of which nothing can be read was removed
			s.listedAt = time.Time{}
		}
	}
	if len(r.Devices) == 0 {
		return telemetry.Reading{}, fmt.Errorf("read GPUs: none of %d answers", len(s.known))
	}
	if !s.lost {
		s.pause.Reset()
	}
	return r, nil
}

// Close ends the use of the library. A later Sample opens it again. Close does nothing while a sample
// is under way, because the sample may hang.
func (s *Sampler) Close() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	s.stop()
}

// ready opens the library if it is closed, and lists the devices if listEvery has passed. The caller
// holds mu.
func (s *Sampler) ready(now time.Time) error {
	switch {
	case !s.open && now.Before(s.retryAt):
		return s.err
	case !s.open:
		if err := s.start(now); err != nil {
			return err
		}
		s.log.Info("NVML can be read again", "driver", s.driver(), "gpus", len(s.known))
	case s.lost && !now.Before(s.retryAt):
		s.stop()
		return s.start(now)
	case now.Sub(s.listedAt) >= listEvery:
		return s.list(now)
	}
	return nil
}

// start opens the library and lists the devices.
func (s *Sampler) start(now time.Time) error {
	if code := s.lib.Init(); code != nvml.SUCCESS {
		return s.fail(now, failure("open NVML", code))
	}
	s.open, s.lost = true, false
	if err := s.list(now); err != nil {
		return err
	}
	s.err, s.said = nil, false
	return nil
}

// stop closes the library. It ignores the library's answer, because the library is already closed if
// the driver is gone.
func (s *Sampler) stop() {
	if !s.open {
		return
	}
	s.forget(s.devices)
	s.forgetEvents()
	s.devices, s.open = nil, false
	s.lib.Shutdown()
}

// fail closes the library until the next attempt and returns err. Until that attempt samples return
// err.
func (s *Sampler) fail(now time.Time, err error) error {
	if !s.said {
		s.said = true
		s.log.Warn("NVML cannot be read; it is tried again, at growing intervals of up to a minute", "err", err)
	}
	s.stop()
	s.err = err
	s.backOff(now)
	return err
}

// lose notes that a GPU is lost. The GPU can come back only after the library was closed, because a GPU
// is not reset while the library is open.
func (s *Sampler) lose(d *device, now time.Time, code nvml.Return) {
	d.lost = true
	if s.known[d.gpu] {
		s.known[d.gpu] = false
		s.log.Warn("a GPU is lost", "uuid", d.gpu, "err", codeError(code))
	}
	s.missing(now)
}

// found notes that a GPU can be read.
func (s *Sampler) found(d *device) {
	if !s.known[d.gpu] {
		s.known[d.gpu] = true
		s.log.Info("a GPU is back", "uuid", d.gpu)
	}
}

// missing makes the sampler open the library again later.
func (s *Sampler) missing(now time.Time) {
	if !s.lost {
		s.lost = true
		s.backOff(now)
	}
}

func (s *Sampler) backOff(now time.Time) {
	s.retryAt = now.Add(s.pause.Next())
}

func (s *Sampler) driver() string {
	if !s.lib.driverVersion {
		return "unknown"
	}
	version, code := s.lib.SystemGetDriverVersion()
	if code != nvml.SUCCESS {
		return "unknown"
	}
	return version
}
