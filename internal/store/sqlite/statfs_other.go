//go:build !linux

package sqlite

// fileSystem knows nothing: file systems have no common numbers here.
func fileSystem(string) (string, fileKind) { return "", local }
