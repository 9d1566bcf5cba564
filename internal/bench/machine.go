package main

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// machine describes the machine on which the figures were measured.
type machine struct {
	CPU   string        `json:"cpu"`
	Cores int           `json:"cores"`
	OS    string        `json:"os"`
	Go    string        `json:"go"`
	Sync  time.Duration `json:"sync_ns"` // median time of a 4 KiB write and fsync in the databases' folder
	Load  string        `json:"load"`    // load average before the run; above zero, other programs ran
	At    time.Time     `json:"at"`
}

func describeMachine(dir string) (m machine, err error) {
	m = machine{CPU: "unknown", Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), At: time.Now().UTC()}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		for scanner := bufio.NewScanner(f); scanner.Scan(); {
			if name, value, ok := strings.Cut(scanner.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
		f.Close()
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.OS += ", kernel " + strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	m.Sync, err = syncTime(dir)
	return m, err
}

// syncTime measures a write and fsync, for which every durable commit waits at least once.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close() // it is thrown away with its folder
	var took []time.Duration
	for range 100 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	p50, _ := quantiles(took)
	return p50, nil
}
