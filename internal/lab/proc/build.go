package proc

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds programs of this module with the Go tool. packages are the programs' package paths.
// out is a file for one program, or a folder with a separator at its end for several. flags are
// passed to go build. A package whose tests run such programs must have a test that calls
// LookAtSources.
func Build(out string, flags []string, packages ...string) error {
	build := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), packages...)...)
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, said)
	}
	return nil
}

// LookAtSources makes go test run a package's tests again when any source of this module has
// changed. go test remembers which files a test has looked at, but not the files that a tool
// started by the test reads. Without LookAtSources, go test would reuse an old result for changed
// programs. It must be called within a test, because go test does not record what TestMain looks
// at.
func LookAtSources() error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err == nil {
		err = lookAt(strings.TrimSpace(string(root)))
	}
	if err != nil {
		return fmt.Errorf("find the sources: %w", err)
	}
	return nil
}

// lookAt calls os.Stat on all sources below root.
func lookAt(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"),
			d.IsDir() && path == filepath.Join(root, "bin"), d.IsDir() && path == filepath.Join(root, "nemesis"):
			return fs.SkipDir
		case d.Type().IsRegular() && !strings.HasSuffix(path, "_test.go"):
			_, err = os.Stat(path) // go test records that the test looked at the file
			return err
		}
		return nil
	})
}
