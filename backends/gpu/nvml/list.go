//go:build cgo && linux

package nvml

import (
	"fmt"
	"strconv"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// device is a GPU or MIG instance that can be read.
type device struct {
	handle nvml.Device
	parent nvml.Device // the GPU of a MIG instance; nil for a GPU
	gpu    string      // UUID of the GPU, also of a MIG instance's GPU
	uuid   string
	name   string
	labels map[string]string
	index  int
	gi     int // GPU instance ID of a MIG instance
	lost   bool
	// divided means that what the driver measures is not the work of this device. A GPU is divided if
	// MIG is on. A MIG instance is divided if its GPU instance holds other MIG instances, because the
	// driver can measure only the whole GPU instance.
	divided bool

	gpm    gpm
	slow   slow
	slowAt time.Time
}

// slow holds the values that are read at longer intervals, because they change rarely or take long to
// read.
type slow struct {
	powerLimit             float64
	corrected, uncorrected float64 // numbers of memory errors
	processes              []telemetry.Process
}

// list finds the devices. Devices that were listed before keep their GPM samples. The caller holds mu.
func (s *Sampler) list(now time.Time) error {
	count, code := s.lib.DeviceGetCount()
	if code != nvml.SUCCESS {
		return s.fail(now, failure("count GPUs", code))
	}
	if count == 0 {
		return s.fail(now, errNoGPU)
	}
	before := s.devices
	s.devices, s.listedAt = nil, now
	for i := range count {
		if err := s.add(i, before, now); err != nil {
			s.forget(before)
			return s.fail(now, err)
		}
	}
	var gone []*device
	for _, d := range before {
		if s.find(d.uuid, s.devices) != d {
			gone = append(gone, d)
		}
	}
	s.forget(gone)
	for uuid, there := range s.known {
		if there && s.find(uuid, s.devices) == nil {
			s.known[uuid] = false
			s.log.Warn("a GPU is lost", "uuid", uuid, "err", errNotListed)
		}
	}
	return nil
}

// add lists GPU number i and its MIG instances. An error means that the library as a whole failed.
func (s *Sampler) add(i int, before []*device, now time.Time) error {
	handle, code := s.lib.DeviceGetHandleByIndex(i)
	var uuid string
	if code == nvml.SUCCESS {
		uuid, code = handle.GetUUID()
	}
	if scopeOf(code) == ofLibrary {
		return failure(fmt.Sprintf("find GPU %d", i), code)
	}
	if code != nvml.SUCCESS || uuid == "" {
		s.missing(now)
		return nil
	}
	if _, seen := s.known[uuid]; !seen {
		s.known[uuid] = true
	}
	index := strconv.Itoa(i)
	instances, divided := s.instances(handle)
	s.keep(before, &device{handle: handle, gpu: uuid, uuid: uuid, index: i, labels: map[string]string{"gpu": index}, divided: divided})
	for _, m := range instances {
		m.gpu, m.index = uuid, i
		m.labels = map[string]string{"gpu": index, "GPU_I_ID": strconv.Itoa(m.gi)}
		s.keep(before, m)
	}
	return nil
}

// instances returns the MIG instances of a GPU, and whether MIG is on.
func (s *Sampler) instances(gpu nvml.Device) (list []*device, divided bool) {
	if !s.lib.mig {
		return nil, false
	}
	if mode, _, code := gpu.GetMigMode(); code != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return nil, false
	}
	most, code := gpu.GetMaxMigDeviceCount()
	if code != nvml.SUCCESS {
		return nil, true
	}
	for i := range most {
		handle, code := gpu.GetMigDeviceHandleByIndex(i)
		if code != nvml.SUCCESS { // no instance has this number
			continue
		}
		uuid, code := handle.GetUUID()
		if code != nvml.SUCCESS || uuid == "" {
			continue
		}
		if gi, code := handle.GetGpuInstanceId(); code == nvml.SUCCESS {
			m := &device{handle: handle, parent: gpu, uuid: uuid, gi: gi}
			for _, other := range list {
				if other.gi == gi { // two compute instances of one GPU instance
					m.divided, other.divided = true, true
				}
			}
			list = append(list, m)
		}
	}
	return list, true
}

// keep adds d to the list, or the device of before that is the same.
func (s *Sampler) keep(before []*device, d *device) {
	if old := s.find(d.uuid, before); old != nil && old.handle == d.handle && old.parent == d.parent && old.gi == d.gi {
		old.index, old.labels, old.gpm.off, old.lost, old.divided = d.index, d.labels, false, false, d.divided
		s.devices = append(s.devices, old)
		return
	}
	if s.lib.name {
		if name, code := d.handle.GetName(); code == nvml.SUCCESS {
			d.name = name
		}
	}
	d.gpm = s.newGPM(d)
	s.register(d)
	s.devices = append(s.devices, d)
}

func (s *Sampler) find(uuid string, in []*device) *device {
	for _, d := range in {
		if d.uuid == uuid {
			return d
		}
	}
	return nil
}

// forget frees the memory of the library that the devices hold.
func (s *Sampler) forget(devices []*device) {
	for _, d := range devices {
		s.freeGPM(&d.gpm)
	}
}
