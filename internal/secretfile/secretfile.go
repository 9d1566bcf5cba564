// Package secretfile writes files that only their owner may read. It replaces a file as a whole: a
// reader finds the old file or the new file, also after a power failure.
//
//	err := secretfile.Write(path, data)
package secretfile

import (
	"os"
	"path/filepath"
)

// Write replaces the file at path. The new file has mode 0600, whatever mode the old file had.
// Write returns once the new file is on the disk. On an error the old file remains, unless only
// the folder could not be brought to the disk: then the new file is there already.
func Write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // CreateTemp uses mode 0600
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

// SyncDir makes earlier renames and removals in a directory survive a power failure.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
