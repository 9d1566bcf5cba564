package gateway

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// decode makes the body of an answer plain if the backend compressed it without being asked to, because
// the gateway reads the usage from the plain bytes. It returns an error for an encoding other than gzip
// and deflate.
func decode(resp *http.Response) error {
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header["Content-Encoding"], ",")))
	var open func(io.Reader) (io.Reader, error)
	switch encoding {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		open = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	case "deflate": // the zlib format, as RFC 9110 has it
		open = func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
	default:
		return fmt.Errorf("content encoding %.40q", encoding)
	}
	resp.Body = &decoder{open: open, body: resp.Body}
	resp.ContentLength = -1
	return nil
}

// decoder is a body that makes its decompressor at the first read, because that waits for the first
// bytes.
type decoder struct {
	open  func(io.Reader) (io.Reader, error)
	body  io.ReadCloser
	plain io.Reader
	err   error
}

// Read reads decompressed bytes.
func (d *decoder) Read(p []byte) (int, error) {
	if d.plain == nil && d.err == nil {
		d.plain, d.err = d.open(bufio.NewReader(d.body))
	}
	if d.err != nil {
		return 0, d.err
	}
	return d.plain.Read(p)
}

// Close closes the backend's answer.
func (d *decoder) Close() error { return d.body.Close() }
