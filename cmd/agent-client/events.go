package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// maxLine bounds one line of an event stream, in bytes.
const maxLine = 16 << 20

// readEvents calls f with the data of each server-sent event: its data lines,
// joined. Comments and other fields are skipped, and so is an event that the
// end of the stream cut off. Lines end in \n or \r\n.
func readEvents(r io.Reader, f func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var data []byte
	open := false
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if open {
				if err := f(data); err != nil {
					return err
				}
			}
			data, open = data[:0], false
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		if open {
			data = append(data, '\n')
		}
		data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		open = true
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	return nil
}
