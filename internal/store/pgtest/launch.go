package pgtest

// Launch starts a server outside of any test, for the benchmarks. settings are arguments of postgres, such as "-c",
// "fsync=on". Without settings the server syncs nothing. The server ends with this process, or with Remove.
func Launch(settings ...string) (*Server, error) { return launch(settings...) }

// Remove stops a launched server and deletes its files.
func (s *Server) Remove() { s.remove() }
