//go:build cgo && linux

package nvml

import "github.com/NVIDIA/go-nvml/pkg/nvml"

// xidBurst bounds how many errors are taken in per sample.
const xidBurst = 64

// register asks the driver to tell of the device's critical errors (Xid). A device
// of which it does not has no number at all.
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
		s.xids[d.uuid] = 0 // none since here
	}
}

// readXids takes in the errors that came since the last sample. It does not wait.
func (s *Sampler) readXids() {
	for range xidBurst {
		if s.events == nil {
			return
		}
		e, code := s.events.Wait(0)
		if code != nvml.SUCCESS {
			return // none, or nothing that the sample itself would not notice
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
