package sqlite

import (
	"errors"
	"fmt"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"sluice.example/sluice/metering"
)

// This file calls SQLite's own interface (the C library, translated to Go) and not database/sql. A batch runs hundreds
// of small statements, and the driver's copies, allocations and names of parameters and columns cost more than SQLite's
// own work.

// conn is one connection. Not safe for concurrent use.
type conn struct {
	tls   *libc.TLS
	db    uintptr
	stmts []*stmt

	// Parameters are in C memory while a statement runs, because SQLite keeps their addresses, and Go does not allow a
	// pointer in an integer.
	args     uintptr
	argBytes []byte // the same memory as args, as a slice
	argsUsed int
	out      uintptr // 8 bytes of C memory for results that SQLite returns by address
}

// argsSize bounds all parameters of one statement together, in bytes.
const argsSize = 64 << 10

// view returns C memory as a slice. p must not be an address in Go's heap.
func view(p uintptr, n int) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), n)
}

// address returns the result that the last call returned by address.
func (c *conn) address() uintptr {
	p := c.out
	return **(**uintptr)(unsafe.Pointer(&p))
}

// openConn opens a database file.
func openConn(path string, flags int32) (*conn, error) {
	c := &conn{tls: libc.NewTLS()}
	c.args = libc.Xmalloc(c.tls, argsSize)
	c.out = libc.Xmalloc(c.tls, 8)
	if c.args == 0 || c.out == 0 {
		return nil, errors.New("out of memory")
	}
	c.argBytes = view(c.args, argsSize)
	name, err := libc.CString(path)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, name)
	// no mutex, because the owner of conn does not share it
	rc := lib.Xsqlite3_open_v2(c.tls, name, c.out, flags|lib.SQLITE_OPEN_NOMUTEX|lib.SQLITE_OPEN_EXRESCODE, 0)
	c.db = c.address()
	if rc != lib.SQLITE_OK {
		err := c.failure(rc)
		c.close()
		return nil, err
	}
	return c, nil
}

// close finalizes all statements and closes the connection.
func (c *conn) close() {
	for _, s := range c.stmts {
		lib.Xsqlite3_finalize(c.tls, s.p)
	}
	lib.Xsqlite3_close_v2(c.tls, c.db)
	libc.Xfree(c.tls, c.args)
	libc.Xfree(c.tls, c.out)
	c.tls.Close()
}

// interrupt makes a running statement fail. It may be called while another goroutine uses the connection, but not after
// close.
func (c *conn) interrupt() { lib.Xsqlite3_interrupt(c.tls, c.db) }

// failure turns a result code into an error. For a code that tells that the transaction wrote nothing, the error is
// ErrConflict or ErrRejected.
func (c *conn) failure(rc int32) error {
	message := "out of memory"
	if c.db != 0 {
		message = libc.GoString(lib.Xsqlite3_errmsg(c.tls, c.db))
	}
	err := fmt.Errorf("sqlite: %s (%d)", message, rc)
	switch rc & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return fmt.Errorf("%w: %w", metering.ErrConflict, err)
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG:
		return fmt.Errorf("%w: %w", metering.ErrRejected, err)
	}
	return err
}

// script runs statements that return no rows and take no parameters.
func (c *conn) script(sql string) error {
	text, err := libc.CString(sql)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, text)
	if rc := lib.Xsqlite3_exec(c.tls, c.db, text, 0, 0, 0); rc != lib.SQLITE_OK {
		return c.failure(rc)
	}
	return nil
}

// stmt is one prepared statement. The caller binds all parameters in order, then runs the statement or steps through
// its rows, and then resets it.
type stmt struct {
	c     *conn
	p     uintptr
	bound int32
	err   error // error of binding, which step returns
}

// prepare compiles one statement, which lives as long as the connection.
func (c *conn) prepare(sql string) (*stmt, error) {
	text, err := libc.CString(sql)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, text)
	rc := lib.Xsqlite3_prepare_v3(c.tls, c.db, text, -1, lib.SQLITE_PREPARE_PERSISTENT, c.out, 0)
	if rc != lib.SQLITE_OK {
		return nil, fmt.Errorf("prepare %q: %w", sql, c.failure(rc))
	}
	s := &stmt{c: c, p: c.address()}
	c.stmts = append(c.stmts, s)
	return s, nil
}

func (s *stmt) check(rc int32) {
	if rc != lib.SQLITE_OK && s.err == nil {
		s.err = s.c.failure(rc)
	}
}

// int binds the next parameter.
func (s *stmt) int(v int64) *stmt {
	s.bound++
	s.check(lib.Xsqlite3_bind_int64(s.c.tls, s.p, s.bound, v))
	return s
}

// bool binds the next parameter as 0 or 1.
func (s *stmt) bool(v bool) *stmt {
	if v {
		return s.int(1)
	}
	return s.int(0)
}

// float binds the next parameter.
func (s *stmt) float(v float64) *stmt {
	s.bound++
	s.check(lib.Xsqlite3_bind_double(s.c.tls, s.p, s.bound, v))
	return s
}

// null binds the next parameter to NULL.
func (s *stmt) null() *stmt {
	s.bound++
	s.check(lib.Xsqlite3_bind_null(s.c.tls, s.p, s.bound))
	return s
}

// room returns C memory for a parameter of n bytes. The memory is valid until reset.
func (s *stmt) room(n int) (uintptr, []byte) {
	used := s.c.argsUsed
	if used+n > argsSize {
		if s.err == nil {
			s.err = fmt.Errorf("%w: parameters of more than %d bytes", metering.ErrRejected, argsSize)
		}
		return s.c.args, nil
	}
	s.c.argsUsed += n
	return s.c.args + uintptr(used), s.c.argBytes[used : used+n]
}

// blob binds the next parameter. nil is an empty blob.
func (s *stmt) blob(b []byte) *stmt {
	s.bound++
	p, mem := s.room(len(b))
	copy(mem, b)
	s.check(lib.Xsqlite3_bind_blob(s.c.tls, s.p, s.bound, p, int32(len(mem)), 0))
	return s
}

// text binds the next parameter.
func (s *stmt) text(v string) *stmt {
	s.bound++
	p, mem := s.room(len(v))
	copy(mem, v)
	s.check(lib.Xsqlite3_bind_text(s.c.tls, s.p, s.bound, p, int32(len(mem)), 0))
	return s
}

// step moves to the next row. It returns false after the last row or after an error, and has then reset the statement.
func (s *stmt) step() (bool, error) {
	if s.err != nil {
		err := s.err
		s.reset()
		return false, err
	}
	switch rc := lib.Xsqlite3_step(s.c.tls, s.p); rc {
	case lib.SQLITE_ROW:
		return true, nil
	case lib.SQLITE_DONE:
		s.reset()
		return false, nil
	default:
		err := s.c.failure(rc)
		s.reset()
		return false, err
	}
}

// run executes a statement and drops its rows.
func (s *stmt) run() error {
	for {
		if more, err := s.step(); !more {
			return err
		}
	}
}

// count executes a statement and returns the number of its rows.
func (s *stmt) count() (n int, err error) {
	for {
		more, err := s.step()
		if !more {
			return n, err
		}
		n++
	}
}

// reset makes the statement ready for new parameters.
func (s *stmt) reset() {
	lib.Xsqlite3_reset(s.c.tls, s.p)
	s.bound, s.err, s.c.argsUsed = 0, nil, 0
}

// colInt reads a column of the current row. NULL is 0.
func (s *stmt) colInt(i int32) int64 { return lib.Xsqlite3_column_int64(s.c.tls, s.p, i) }

func (s *stmt) colFloat(i int32) float64 { return lib.Xsqlite3_column_double(s.c.tls, s.p, i) }

// colRaw returns the bytes of a column in SQLite's memory. They are valid until the next step.
func (s *stmt) colRaw(i int32) []byte {
	p := lib.Xsqlite3_column_blob(s.c.tls, s.p, i)
	n := lib.Xsqlite3_column_bytes(s.c.tls, s.p, i)
	if p == 0 {
		return nil
	}
	return view(p, int(n))
}

// colID copies a column of fixed length. NULL leaves into unchanged.
func (s *stmt) colID(i int32, into []byte) { copy(into, s.colRaw(i)) }

func (s *stmt) colBytes(i int32) []byte { return append([]byte{}, s.colRaw(i)...) }

func (s *stmt) colText(i int32) string { return string(s.colRaw(i)) }
