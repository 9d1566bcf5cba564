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

// Each mutant leaves about 10 MB of compiled packages that nobody needs again.
// They go into a copy of the build cache, made of hard links, which is thrown
// away after so many mutants. The go command replaces and removes files of its
// cache and never changes what is in them, so the copy costs nothing and the
// original stays as it is.
const mutantsPerCache = 200

// shadow copies the build cache and returns the copy's folder, which the caller
// removes. It lies beside the original, because links need one file system.
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

// gone forgives that another build removed a file meanwhile.
func gone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// removeAll removes a folder in which processes that were just killed may still
// be at work.
func removeAll(dir string) {
	for deadline := time.Now().Add(drain); os.RemoveAll(dir) != nil && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
}
