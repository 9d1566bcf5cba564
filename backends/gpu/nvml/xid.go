//go:build cgo && linux

package nvml

import "github.com/NVIDIA/go-nvml/pkg/nvml"

// xidBurst bounds how many errors are recorded per sample.
const xidBurst = 64

// register asks the driver to report the device's critical errors (Xid). If the driver does not report
// them for a device, s.xids has no entry for the device, which means not known.
func (s *Sampler) register(d *device) {
	if !s.lib.events || d.parent != nil {
		return
	}
	if s.events == nil {
		set, code := s.lib.EventSetCreate()
		if code != nvml.SUCCESS {
			return
		}
		s.events = set
	}
	if d.handle.RegisterEvents(nvml.EventTypeXidCriticalError, s.events) != nvml.SUCCESS {
		delete(s.xids, d.uuid)
		return
	}
	if _, known := s.xids[d.uuid]; !known {
		s.xids[d.uuid] = 0 // no error since the sampler began
	}
}

// readXids records the errors that came since the last sample. It does not wait for errors.
func (s *Sampler) readXids() {
	for range xidBurst {
		if s.events == nil {
			return
		}
		e, code := s.events.Wait(0)
		if code != nvml.SUCCESS {
			return // no error, or a failure that the sample itself would notice
		}
		if uuid, code := e.Device.GetUUID(); code == nvml.SUCCESS && e.EventType&nvml.EventTypeXidCriticalError != 0 {
			s.xids[uuid] = float64(e.EventData)
			s.log.Error("a GPU reports a critical error", "uuid", uuid, "xid", e.EventData)
		}
	}
}

// forgetEvents ends what register began.
func (s *Sampler) forgetEvents() {
	if s.events != nil {
		s.events.Free()
		s.events = nil
	}
}
