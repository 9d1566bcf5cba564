package format_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"sluice.example/sluice/metering/format"
)

// split is all events of r, what was left of an unfinished one, and the error
// at the end.
func split(r io.Reader, most int) (events []string, rest string, end error) {
	e := format.NewEvents(r, most)
	for {
		event, err := e.Next()
		if errors.Is(err, format.ErrPartial) {
			rest = string(event)
			continue
		}
		if err != nil {
			return events, rest, err
		}
		events = append(events, string(event))
	}
}

func TestEvents(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   []string
		rest   string
	}{
		"nothing":              {"", nil, ""},
		"lf":                   {"data: a\n\ndata: b\n\n", []string{"data: a\n\n", "data: b\n\n"}, ""},
		"crlf":                 {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"data: a\r\n\r\n", "data: b\r\n\r\n"}, ""},
		"cr":                   {"data: a\r\rdata: b\r\r", []string{"data: a\r\r", "data: b\r\r"}, ""},
		"several lines":        {"event: x\nid: 1\ndata: a\ndata: b\n\n", []string{"event: x\nid: 1\ndata: a\ndata: b\n\n"}, ""},
		"comments":             {": ping\n\ndata: a\n\n", []string{": ping\n", "\n", "data: a\n\n"}, ""},
		"comments within":      {"event: x\n: ping\ndata: a\n\n", []string{"event: x\n: ping\ndata: a\n\n"}, ""},
		"comments, cr":         {": a\r: b\rdata: {}\r\r", []string{": a\r", ": b\r", "data: {}\r\r"}, ""},
		"one lf between":       {"data: {}\ndata: {\"a\":1}\ndata: [DONE]\n", []string{"data: {}\n", "data: {\"a\":1}\n"}, "data: [DONE]\n"},
		"one crlf between":     {"data: {}\r\ndata: [DONE]\r\n", []string{"data: {}\r\n"}, "data: [DONE]\r\n"},
		"one cr between":       {"data: {}\rdata: [DONE]\r", []string{"data: {}\r"}, "data: [DONE]\r"},
		"no lf at the end":     {"data: {}\ndata: [DONE]", []string{"data: {}\n"}, "data: [DONE]"},
		"one object in lines":  {"data: {\ndata: }\ndata: {}\n\n", []string{"data: {\ndata: }\n", "data: {}\n\n"}, ""},
		"not a number":         {"data: {\"a\":NaN}\ndata: {}\n\n", []string{"data: {\"a\":NaN}\n", "data: {}\n\n"}, ""},
		"blank lines between":  {"data: a\n\n\n\ndata: b\n\n", []string{"data: a\n\n", "\n", "\n", "data: b\n\n"}, ""},
		"blank crlf at start":  {"\r\ndata: a\r\n\r\n", []string{"\r", "\n", "data: a\r\n\r\n"}, ""},
		"mixed":                {"data: a\n\r\ndata: b\r\n\ndata: c\r\r\n", []string{"data: a\n\r", "\n", "data: b\r\n\n", "data: c\r\r", "\n"}, ""},
		"lone cr after crlf":   {"data: a\r\n\rdata: b\n\n", []string{"data: a\r\n\r", "data: b\n\n"}, ""},
		"unfinished":           {"data: a\n\ndata: [DO", []string{"data: a\n\n"}, "data: [DO"},
		"unfinished, one line": {"data: a\n", nil, "data: a\n"},
		"unfinished crlf":      {"data: a\r\n\r", nil, "data: a\r\n\r"},
		"escapes stay":         {"data: {\"a\":\"\\n\\n\"}\n\n", []string{"data: {\"a\":\"\\n\\n\"}\n\n"}, ""},
	} {
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(c.stream), "byte by byte": iotest.OneByteReader(strings.NewReader(c.stream)),
			"halves": iotest.HalfReader(strings.NewReader(c.stream)), "with the error": iotest.DataErrReader(strings.NewReader(c.stream)),
		} {
			got, rest, err := split(r, 0)
			if !slices.Equal(got, c.want) || rest != c.rest || err != io.EOF {
				t.Errorf("%s, %s: %q, left %q, %v; want %q, left %q, EOF", name, how, got, rest, err, c.want, c.rest)
			}
		}
	}
}

func TestAnEventIsReturnedAsSoonAsItIsThere(t *testing.T) {
	for _, event := range []string{"data: a\n\n", "data: a\r\n\r\n", "data: a\r\r", ": ping\n"} {
		r, w := io.Pipe()
		events := format.NewEvents(r, 0)
		for range 3 {
			go func() { _, _ = w.Write([]byte(event)) }()
			if got, err := events.Next(); string(got) != event || err != nil { // blocks for ever if it waits for more
				t.Errorf("%q, %v; want %q", got, err, event)
			}
		}
		w.CloseWithError(io.ErrUnexpectedEOF)
		if _, err := events.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v, want the reader's", err)
		}
	}
}

func TestLongEvents(t *testing.T) {
	long := "data: " + strings.Repeat("x", 1<<20) + "\n\n"
	got, rest, err := split(strings.NewReader(long+"data: b\n\n"), 0)
	if len(got) != 2 || got[0] != long || rest != "" || err != io.EOF {
		t.Errorf("%d events, %d bytes left, %v", len(got), len(rest), err)
	}
	e := format.NewEvents(strings.NewReader("data: a\n\n"+long), 100_000)
	if event, err := e.Next(); string(event) != "data: a\n\n" || err != nil {
		t.Errorf("%q, %v", event, err)
	}
	for range 2 {
		if event, err := e.Next(); event != nil || !errors.Is(err, format.ErrTooLong) {
			t.Errorf("%d bytes, %v; want ErrTooLong", len(event), err)
		}
	}
}

func TestErrorsOfTheReader(t *testing.T) {
	broken := errors.New("broken")
	e := format.NewEvents(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken)), 0)
	if event, err := e.Next(); string(event) != "data: a\n\n" || err != nil {
		t.Errorf("%q, %v", event, err)
	}
	if event, err := e.Next(); string(event) != "data: b" || !errors.Is(err, format.ErrPartial) || !errors.Is(err, broken) {
		t.Errorf("%q, %v", event, err)
	}
	if event, err := e.Next(); event != nil || !errors.Is(err, broken) || errors.Is(err, format.ErrPartial) {
		t.Errorf("%q, %v", event, err)
	}
	if _, err := format.NewEvents(silent{}, 0).Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a silent reader: %v", err)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestEventsReuseTheirMemory(t *testing.T) {
	stream := bytes.Repeat([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n"), 20_000)
	r := bytes.NewReader(stream)
	allocations := testing.AllocsPerRun(1, func() {
		r.Reset(stream)
		e := format.NewEvents(r, 0)
		for {
			if _, err := e.Next(); err != nil {
				return
			}
		}
	})
	if allocations > 5 {
		t.Errorf("%v allocations for 20,000 events", allocations)
	}
}

// What arrived together with the end marker is held, however much came before it in one piece.
func TestHeldBehindManyEvents(t *testing.T) {
	const marker, usage = "data: [DONE]\n\n", "data: {\"usage\":1}\n\n"
	for size := range 300 {
		r, w := io.Pipe()
		go w.Write([]byte(strings.Repeat("data: {}\n\n", size) + marker + usage))
		e := format.NewEvents(bufio.NewReaderSize(r, 4096), 0)
		for {
			event, err := e.Next()
			if err != nil {
				t.Fatal(err)
			}
			if string(event) == marker {
				break
			}
		}
		if held := e.Held(); string(held) != usage {
			t.Fatalf("behind %d events: %q", size, held)
		}
		if held := e.Held(); held != nil {
			t.Fatalf("behind %d events, then: %q", size, held)
		}
		r.Close()
	}
}

// A stream that ends with its marker, where the buffer ends too, is not waited for.
func TestHeldWaitsForNothing(t *testing.T) {
	const marker = "data: [DONE]\n\n"
	for size := 2000; size < 2100; size++ {
		r, w := io.Pipe()
		go w.Write([]byte("data: " + strings.Repeat("x", size-len("data: \n\n")-len(marker)) + "\n\n" + marker))
		e := format.NewEvents(bufio.NewReaderSize(r, 4096), 0)
		for range 2 {
			if _, err := e.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if held := e.Held(); held != nil {
			t.Fatalf("%d bytes: %q", size, held)
		}
		r.Close()
	}
}
