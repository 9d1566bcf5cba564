package secretfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"sluice.example/sluice/internal/secretfile"
)

func TestWriteReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token.json")
	if err := os.WriteFile(path, []byte("old and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := secretfile.Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(got) != "new" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, mode %v (%v, %v): a file that others could read must not stay so", got, info.Mode(), err, statErr)
	}
	only(t, dir, "token.json")
}

func TestWriteFailsAndLeavesTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := secretfile.Write(path, []byte("x")); err == nil { // a folder cannot be replaced by a file
		t.Error("a folder was replaced")
	}
	only(t, dir, "folder")
	if err := secretfile.Write(filepath.Join(dir, "missing", "x"), nil); err == nil {
		t.Error("a file was written into a folder that does not exist")
	}
}

// only checks that dir has one entry with this name, so that no temporary file remains.
func only(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder holds %v (%v), want %s alone", entries, err, name)
	}
}
