// Package secretfile writes files that only their owner may read, and replaces them
// whole: a reader, and a machine that loses power, sees the old file or the new one.
//
//	err := secretfile.Write(path, data)
package secretfile

import (
	"os"
	"path/filepath"
)

// Write replaces the file at path, with mode 0600 whatever mode the file had, and
// returns once the new one is on the disk. On an error the old file is still there.
func Write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(dir)
	}
	return err
}

// SyncDir makes the renames and removals in a folder survive a power cut.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
