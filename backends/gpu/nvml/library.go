//go:build cgo && linux

package nvml

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// library is the loaded library, and the list of its functions that may be called.
type library struct {
	nvml.Interface
	features
}

// features are the groups of functions that the library has. Calling a function that the library lacks
// ends the process.
type features struct {
	driverVersion, name           bool
	utilization, memory, memory2  bool
	power, powerLimit, energy     bool
	temperature, temperatureV     bool
	eventReasons, throttleReasons bool
	processes, mig, gpm, gpmMIG   bool
	ecc, events                   bool
}

// load opens the library and looks up its functions. It does so before the binding opens the library,
// because the first step of the binding is a call of a function. load never closes its handle, because
// functions that were resolved once stay resolved.
func load(path string) (*library, error) {
	if path == "" {
		path = DefaultLibrary
	}
	if otherLoaded(path) {
		return nil, fmt.Errorf("%s: this process has loaded another NVML library", path)
	}
	handle := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := handle.Open(); err != nil {
		return nil, err
	}
	has := func(names ...string) bool {
		for _, name := range names {
			if handle.Lookup(name) != nil {
				return false
			}
		}
		return true
	}
	// If a function has several versions, the binding takes the newest version that the library has.
	for _, name := range [][2]string{{"nvmlInit_v2", "nvmlInit"}, {"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
		{"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"}, {"nvmlShutdown"}, {"nvmlDeviceGetUUID"}} {
		if !has(name[0]) && (name[1] == "" || !has(name[1])) {
			return nil, fmt.Errorf("%s lacks %s", path, name[0])
		}
	}
	return &library{nvml.New(nvml.WithLibraryPath(path)), features{
		driverVersion:   has("nvmlSystemGetDriverVersion"),
		name:            has("nvmlDeviceGetName"),
		utilization:     has("nvmlDeviceGetUtilizationRates"),
		memory:          has("nvmlDeviceGetMemoryInfo"),
		memory2:         has("nvmlDeviceGetMemoryInfo_v2"),
		power:           has("nvmlDeviceGetPowerUsage"),
		powerLimit:      has("nvmlDeviceGetEnforcedPowerLimit"),
		energy:          has("nvmlDeviceGetTotalEnergyConsumption"),
		temperature:     has("nvmlDeviceGetTemperature"),
		temperatureV:    has("nvmlDeviceGetTemperatureV"),
		eventReasons:    has("nvmlDeviceGetCurrentClocksEventReasons"),
		throttleReasons: has("nvmlDeviceGetCurrentClocksThrottleReasons"),
		processes: has("nvmlDeviceGetComputeRunningProcesses_v3") || has("nvmlDeviceGetComputeRunningProcesses_v2") ||
			has("nvmlDeviceGetComputeRunningProcesses"),
		mig:    has("nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId"),
		gpm:    has("nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleFree", "nvmlGpmSampleGet", "nvmlGpmMetricsGet"),
		gpmMIG: has("nvmlGpmMigSampleGet"),
		ecc:    has("nvmlDeviceGetTotalEccErrors"),
		events: has("nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetFree") && (has("nvmlEventSetWait_v2") || has("nvmlEventSetWait")),
	}}, nil
}

// otherLoaded says whether the process has loaded an NVML library that is not the library at path.
// Functions are resolved in the order in which libraries were loaded, so the library at path would be
// opened, but the functions of the other library called.
func otherLoaded(path string) bool {
	process := dl.New("", dl.RTLD_LAZY) // the program and the libraries that it has loaded
	if process.Open() != nil || process.Lookup("nvmlShutdown") != nil {
		return false
	}
	same := dl.New(path, dl.RTLD_LAZY|dl.RTLD_NOLOAD)
	if same.Open() != nil {
		return true
	}
	_, err := same.Path() // Open reports no error if the library is not loaded
	return err != nil
}

// failure returns an answer of NVML as an error. It does not use the text of the binding, because that
// text comes from a function that the library may lack.
func failure(call string, code nvml.Return) error {
	return fmt.Errorf("%s: %w", call, codeError(code))
}

type codeError nvml.Return

func (c codeError) Error() string {
	var text string
	switch nvml.Return(c) {
	case nvml.ERROR_UNINITIALIZED:
		text = "the library is not initialized: was the driver reloaded?"
	case nvml.ERROR_NO_PERMISSION:
		text = "no permission"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		text = "the driver is not loaded"
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		text = "the library is not found"
	case nvml.ERROR_GPU_IS_LOST:
		text = "the GPU is lost"
	case nvml.ERROR_RESET_REQUIRED:
		text = "the GPU needs a reset"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		text = "the driver is of another version than the library that this process has loaded: restart this process"
	default:
		return fmt.Sprintf("NVML code %d", int(c))
	}
	return fmt.Sprintf("NVML code %d, %s", int(c), text)
}

// scope is how much an error code of NVML is about.
type scope int

const (
	ofCall    scope = iota // only this value cannot be read
	ofDevice               // the device is lost
	ofLibrary              // the driver is gone
)

func scopeOf(code nvml.Return) scope {
	switch code {
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED, nvml.ERROR_GPU_NOT_FOUND:
		return ofDevice
	case nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return ofLibrary
	}
	return ofCall
}

var (
	errNoGPU     = errors.New("the driver knows no GPU")
	errNotListed = errors.New("the driver lists it no more")
)
