package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"strings"
)

// requestBody is the body of a request. It can be read more than once.
type requestBody struct {
	open  func() (io.ReadCloser, error)
	size  int64  // size in bytes; -1: not known
	model string // the text member "model" of a JSON body, or ""; set by check
}

// maxStdin bounds a body from standard input, in bytes, because the program keeps the body in
// memory.
const maxStdin = 64 << 20

// openBody reads the value of -d. The value is the body itself, @FILE for a file, or @- for
// standard input.
func openBody(data string, stdin io.Reader) (*requestBody, error) {
	path, isFile := strings.CutPrefix(data, "@")
	if isFile && path != "-" {
		return fileBody(path)
	}
	content := []byte(data)
	if isFile {
		var err error
		if content, err = io.ReadAll(io.LimitReader(stdin, maxStdin+1)); err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		if len(content) > maxStdin {
			return nil, fmt.Errorf("standard input is longer than %d bytes: give a file", maxStdin)
		}
	}
	return &requestBody{size: int64(len(content)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}, nil
}

// fileBody returns a body that opens the file again for each reading. It refuses a pipe and
// anything else that is not a regular file, because such a file can be read only once.
func fileBody(path string) (*requestBody, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: pipe it in with -d @-", clip(path))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return &requestBody{size: info.Size(), open: func() (io.ReadCloser, error) { return os.Open(path) }}, file.Close()
}

// check refuses a body that is not one JSON value, if the content type is JSON. It also sets model.
func (b *requestBody) check(contentType string) error {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil
	}
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	model, err := readJSON(json.NewDecoder(r))
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the body is empty and should be JSON: give one, or another type with -H 'Content-Type: …'")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the body is no whole JSON value: it ends too early. Give another type with -H 'Content-Type: …' if it is none")
	case err != nil:
		return fmt.Errorf("the body is not JSON: %w. Give another type with -H 'Content-Type: …' if it is none", err)
	}
	b.model = model
	return nil
}

// readJSON reads exactly one JSON value in small pieces and returns its text member "model". io.EOF
// means that there is no value.
func readJSON(dec *json.Decoder) (model string, err error) {
	depth, key := 0, ""
	for first := true; first || depth > 0; first = false {
		isKey := depth == 1 && key == ""
		token, err := dec.Token()
		if errors.Is(err, io.EOF) && !first {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		text, isText := token.(string)
		switch delim, isDelim := token.(json.Delim); {
		case isDelim && (delim == '{' || delim == '['):
			if depth++; depth == 1 && delim == '[' {
				key = "\x00" // a list has no members
			}
		case isDelim:
			depth--
		case isKey && isText:
			key = text
			continue
		case depth == 1 && isText && key == "model":
			model = text
		}
		if depth == 1 && key != "\x00" {
			key = ""
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("there is more than one value")
	}
	return model, nil
}
