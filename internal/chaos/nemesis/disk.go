package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
)

// disk is a file system of its own in a file, so that it can be full, and slow,
// for one schedule alone. A nil disk cannot do either.
type disk struct {
	at, image string
}

// disksWork reports why this machine cannot have such disks; nil: it can.
func disksWork() error {
	dir, err := os.MkdirTemp("", "nemesis-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	d, err := newDisk(at, filepath.Join(dir, "image"), 16)
	if err != nil {
		return err
	}
	return errors.Join(d.slow(10*time.Millisecond), d.close())
}

// newDisk mounts a fresh file system of some MiB.
func newDisk(at, image string, size int64) (*disk, error) {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, size<<20); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image},
		{"mount", "-o", "loop,noatime", image, at},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w: %s", errUnable, args[0], err, out)
		}
	}
	return &disk{at: at, image: image}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.at, "ballast") }

// perform fills the disk, or slows it, for a while.
func (d *disk) perform(p *play, f fault) error {
	if d == nil {
		return fmt.Errorf("%w: a disk in a file (root, mkfs.ext4 and loop mounts)", errUnable)
	}
	defer p.record.span(history.Database, f.kind)()
	if f.kind == faultSlow {
		return d.slow(f.lasts)
	}
	if err := d.fill(); err != nil {
		return err
	}
	p.wait(f.lasts)
	return d.heal()
}

// fill writes until there is no room.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 { // the last bytes in small pieces
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
	return nil
}

func (d *disk) heal() error {
	if d == nil {
		return nil
	}
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// slow lets the disk write in a tenth of the time only. Another process does
// it: should this one be killed, that one still thaws the disk.
func (d *disk) slow(lasts time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "slow", d.at, lasts.String())
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: freeze a file system: %w: %s", errUnable, err, out)
	}
	return nil
}

// How slow: the disk stands still for one stretch and works for the other.
const (
	diskStands = 70 * time.Millisecond
	diskWorks  = 8 * time.Millisecond
)

// slowDisk is the other process. It ends with its standard input, if that comes
// first.
func slowDisk(at string, lasts time.Duration) error {
	dir, err := os.Open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	left := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(left)
	}()
	for ends := time.Now().Add(lasts); time.Now().Before(ends); {
		if err := freeze(dir); err != nil {
			return err
		}
		time.Sleep(diskStands)
		if err := thaw(dir); err != nil {
			return err
		}
		select {
		case <-left:
			return nil
		case <-time.After(diskWorks):
		}
	}
	return nil
}

// close unmounts the disk once nobody uses it any more.
func (d *disk) close() error {
	if d == nil {
		return nil
	}
	var out []byte
	var err error
	for range 50 {
		if out, err = exec.Command("umount", d.at).CombinedOutput(); err == nil {
			return os.Remove(d.image)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: %w: %s", d.at, err, out)
}
