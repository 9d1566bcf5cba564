package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mutantsPerCache is how many mutants share one copy of the build cache. Each mutant leaves about
// 10 MB of compiled packages that nobody needs again, so the copy is removed after that many
// mutants. The copy consists of hard links. The go command replaces and removes files of its cache,
// but never changes the content of a file. The copy therefore takes no space at first, and the
// original cache is not changed.
const mutantsPerCache = 200

// shadow makes a copy of the build cache and returns the copy's folder, which the caller must
// remove. The folder is beside the original, because hard links need one file system.
func shadow(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOCACHE")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the build cache: %w", err)
	}
	original := strings.TrimSpace(string(out))
	if err := os.MkdirAll(original, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(original), "sluice-mutate-cache-")
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(original, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		}
		return gone(os.Link(path, filepath.Join(dir, rel)))
	})
	if err != nil {
		removeAll(dir)
		return "", fmt.Errorf("copy the build cache by links: %w", err)
	}
	return dir, nil
}

// gone returns nil for the error that another build has removed a file in the meantime, and any
// other error unchanged.
func gone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// removeAll removes a folder. Processes that were just killed may still write to the folder, so
// removeAll tries again for the time drain.
func removeAll(dir string) {
	for deadline := time.Now().Add(drain); os.RemoveAll(dir) != nil && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
}
