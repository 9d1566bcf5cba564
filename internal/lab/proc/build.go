package proc

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build has the Go tool build programs of this module, named as packages, into out,
// which is a file for one of them and a folder with a separator at its end for
// several. flags go to go build. A package whose tests run such programs has a test
// that calls LookAtSources.
func Build(out string, flags []string, packages ...string) error {
	build := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), packages...)...)
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, said)
	}
	return nil
}

// LookAtSources has go test run the tests of a package anew when any source of this
// module has changed. go test remembers which files a test has looked at, but sees
// nothing of a tool that runs in one, so that it would take an old result for one of
// new programs. It must be called within a test: what TestMain does is not seen.
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

// lookAt asks for the state of all sources below root.
func lookAt(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"),
			d.IsDir() && path == filepath.Join(root, "bin"), d.IsDir() && path == filepath.Join(root, "nemesis"):
			return fs.SkipDir
		case d.Type().IsRegular() && !strings.HasSuffix(path, "_test.go"):
			_, err = os.Stat(path) // go test takes note of it
			return err
		}
		return nil
	})
}
