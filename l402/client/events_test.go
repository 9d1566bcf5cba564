package client_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sluice.example/sluice/l402/client"
)

// listed returns all events, each as "name|data|comments".
func listed(r io.Reader) (list []string, err error) {
	for events := client.NewEventReader(r); ; {
		e, err := events.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		data := "none"
		if e.Data != nil {
			data = fmt.Sprintf("%q", e.Data)
		}
		list = append(list, e.Name+"|"+data+"|"+strings.Join(e.Comments, ","))
	}
}

func TestEventReader(t *testing.T) {
	for stream, want := range map[string]string{
		"data: a\n\ndata: b\n\n":     `|"a"|;|"b"|`,
		"data:a\r\n\r\ndata:  b\r\r": `|"a"|;|" b"|`,
		"\ufeffdata: a\n\n":          `|"a"|`,
		"data: a\ndata: b\ndata\n\n": `|"a\nb\n"|`,
		"data:\n\n":                  `|""|`,
		": ping\n\n:\n\n":            `|none|: ping;|none|:`,
		": l402 cost_msat=1 balance_msat=2\ndata: [DONE]\n\n":  `|"[DONE]"|: l402 cost_msat=1 balance_msat=2`,
		"data: {}\nevent: error\n: one\n: two\n\n":             `error|"{}"|: one,: two`,
		"id: 4\nretry: 9\n\n\n\ndata: a\n\n":                   `|"a"|`,
		"data: a\n\ndata: cut":                                 `|"a"|`,
		"data: a\n\ndata: cut\n":                               `|"a"|`,
		"data: a\n\r\ndata: b\r\n\n":                           `|"a"|;|"b"|`,
		"database: x\ndatum\n\nevent: only a name\n\ndata: a:": `only a name|none|`,
		"": "",
	} {
		for how, r := range map[string]io.Reader{
			"whole": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream)),
			"halves": iotest.HalfReader(strings.NewReader(stream)),
		} {
			list, err := listed(r)
			if got := strings.Join(list, ";"); err != nil || got != want {
				t.Errorf("%q, %s: %s, %v; want %s", stream, how, got, err, want)
			}
		}
	}
}

// TestEventReaderDoesNotWait checks that an event is returned when its blank line has come, while
// the stream continues.
func TestEventReaderDoesNotWait(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r"} {
		r, w := io.Pipe()
		events := client.NewEventReader(r)
		go w.Write([]byte("data: a" + end + end))
		if e, err := events.Next(); err != nil || string(e.Data) != "a" {
			t.Errorf("%q: %q, %v", end, e.Data, err)
		}
		w.Close()
		if _, err := events.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", end, err)
		}
	}
}

func TestEventReaderFails(t *testing.T) {
	lost := errors.New("lost")
	list, err := listed(io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(lost)))
	if !errors.Is(err, lost) || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	long := "data: " + strings.Repeat("x", 5<<20) + "\n"
	if list, err := listed(strings.NewReader(long + long + long + "\n")); err != nil || len(list) != 1 {
		t.Errorf("15 MiB: %d events, %v", len(list), err)
	}
	if _, err := listed(strings.NewReader(long + long + long + long + "\n")); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("20 MiB in four lines: %v", err)
	}
	if _, err := listed(strings.NewReader(strings.Repeat(":\n", 2<<20))); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("2 million empty comments: %v", err)
	}
	if _, err := listed(strings.NewReader("data: " + strings.Repeat("x", 20<<20))); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("20 MiB in one line: %v", err)
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\ndata: c\r\n\r\n: comment\n\ndata: cut"))
	f.Add([]byte("event: x\ndata:\n\n"))
	f.Add([]byte(stream))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := listed(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := listed(iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil || fmt.Sprint(pieces) != fmt.Sprint(whole) {
			t.Fatalf("%q in one piece, %q byte by byte (%v)", whole, pieces, err)
		}
	})
}
