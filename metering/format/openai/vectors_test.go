package openai_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/metering/format/formattest"
	"sluice.example/sluice/pricing"
)

// vectorLimits are those of the model of all vectors.
var vectorLimits = format.Limits{ContextTokens: 8192, MaxCompletion: 256, TemplateBase: 64, TemplatePerMessage: 8}

// played is what became of an answer.
type played struct {
	client string // without the end that the gateway makes
	usage  pricing.Units
	source string
	failed string
	end    format.End
}

// perform meters an answer of a vector as the gateway does.
func perform(t *testing.T, v *formattest.Vector, answer io.Reader) (p played) {
	t.Helper()
	all := apis.All()
	f := all[slices.IndexFunc(all, func(f format.Format) bool { return f.Name() == v.API })]
	r, err := f.Parse(f.Paths()[0], v.Request, noPolicy)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	b, err := r.Bound(vectorLimits)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	profile := format.ProfileOf(v.Engine)
	m := r.Meter(b, nil, format.MeterOptions{
		Start: start, Now: func() time.Time { return start.Add(time.Second) },
		ContinuousUsage: r.Stream() && profile.ContinuousUsage, Timings: r.Stream() && profile.RunningTimings,
		UsagePerSequence: profile.UsagePerSequence, UsageOfAll: !profile.UsagePerSequence && profile.Engine != format.EngineGeneric,
		OneCompletion: profile.OneCompletion,
	})
	if v.Streamed() {
		p.client, p.end = streamed(t, m, answer)
	} else {
		document, err := io.ReadAll(answer)
		if err != nil {
			t.Fatal(err)
		}
		clean, err := m.Unary(document)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		p.client, p.end = string(clean), format.Complete
	}
	p.failed = m.Failure().Message
	usage, source, clamped := m.Final(p.end, start.Add(time.Second))
	usage[pricing.WallMicros], usage[pricing.Bytes] = 0, 0 // what the clock and the connection say
	if p.usage, p.source = usage, string(source); clamped {
		t.Errorf("%s: the usage is clamped by %+v", v.Name, m.Excess())
	}
	return p
}

// streamed reads a stream to its end and returns what the client gets.
func streamed(t *testing.T, m format.Meter, answer io.Reader) (string, format.End) {
	t.Helper()
	var client strings.Builder
	for events := format.NewEvents(answer, 0); ; {
		event, err := events.Next()
		if err != nil && !(errors.Is(err, format.ErrPartial) && format.Whole(event)) {
			return client.String(), format.BackendCut
		}
		out, last := m.Event(event)
		switch {
		case last && m.Finished():
			return client.String(), format.Complete
		case last, m.Failed():
			return client.String(), format.BackendCut
		}
		if client.Write(out); out != nil {
			m.Delivered()
		}
	}
}

// want compares what became of an answer with the vector.
func (p played) want(t *testing.T, v *formattest.Vector, how, client string) {
	t.Helper()
	if dataFirst(p.client) != dataFirst(client) {
		t.Errorf("%s, %s: the client gets\n%s\nwant\n%s", v.Name, how, p.client, client)
	}
	want := pricing.Units{pricing.InputTokens: v.Input, pricing.OutputTokens: v.Output, pricing.Calls: 1, pricing.Searches: v.Searches, pricing.Documents: v.Documents}
	if p.usage != want || p.source != string(v.Source) {
		t.Errorf("%s, %s: %v by %s, want %v by %s", v.Name, how, p.usage, p.source, want, v.Source)
	}
	if complete := !v.Cut && v.Failed == ""; complete != (p.end == format.Complete) || p.failed != v.Failed {
		t.Errorf("%s, %s: it ends with %v and the failure %q", v.Name, how, p.end, p.failed)
	}
}

// dataFirst is a stream whose blocks begin with their data: an event that cannot pass as
// it came is written so, because go-openai stumbles over a name before the data.
func dataFirst(stream string) string {
	blocks := strings.Split(stream, "\n\n")
	for i, block := range blocks {
		var data, rest []string
		for line := range strings.SplitSeq(block, "\n") {
			if strings.HasPrefix(line, "data:") {
				data = append(data, line)
			} else {
				rest = append(rest, line)
			}
		}
		blocks[i] = strings.Join(append(data, rest...), "\n")
	}
	return strings.Join(blocks, "\n\n")
}

// wires are the ways in which the same stream can be written.
var wires = map[string]func(stream string) string{
	"as it is":       func(s string) string { return s },
	"CRLF":           func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	"CR":             func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
	"a BOM":          func(s string) string { return format.ByteOrderMark + s },
	"a BOM and CRLF": func(s string) string { return format.ByteOrderMark + strings.ReplaceAll(s, "\n", "\r\n") },
	"no last newline": func(s string) string {
		return strings.TrimRight(s, "\n")
	},
	"no last newline, CRLF": func(s string) string {
		return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\r\n")
	},
	"ids":         func(s string) string { return before(s, "id: 7\n") },
	"retry times": func(s string) string { return before(s, "retry: 100\n") },
}

// before puts a line before each line of data but the first.
func before(stream, line string) string {
	return strings.ReplaceAll(stream, "\ndata:", "\n"+line+"data:")
}

// readings are the ways in which a stream can arrive.
var readings = map[string]func(io.Reader) io.Reader{
	"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "in halves": iotest.HalfReader,
	"with the error": iotest.DataErrReader,
}

// TestVectors plays the recorded answers. However a stream is written, and however it
// arrives, the client gets the same of it, and it costs the same.
func TestVectors(t *testing.T) {
	for _, v := range formattest.Read(t, "testdata/vectors") {
		client := v.Client
		if v.Streamed() { // the gateway makes the last block
			client = client[:1+strings.LastIndex(strings.TrimRight(client, "\n"), "\n\n")] + "\n"
		}
		for how, wire := range wires {
			if !v.Streamed() && how != "as it is" {
				continue
			}
			for arriving, reading := range readings {
				p := perform(t, v, reading(strings.NewReader(wire(v.Answer))))
				p.want(t, v, how+", "+arriving, client)
			}
		}
	}
}

// A document that is read piece by piece costs what it costs as a whole.
func TestVectorsInPieces(t *testing.T) {
	for _, v := range formattest.Read(t, "testdata/vectors") {
		all := apis.All()
		f := all[slices.IndexFunc(all, func(f format.Format) bool { return f.Name() == v.API })]
		r, err := f.Parse(f.Paths()[0], v.Request, noPolicy)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		b, err := r.Bound(vectorLimits)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 7, 4096, 1 << 20} {
			m, ok := r.Meter(b, nil, format.MeterOptions{Start: start}).(format.Pieces)
			if !ok {
				continue
			}
			for piece := range slices.Chunk([]byte(v.Answer), size) {
				m.Piece(piece)
				m.Delivered()
			}
			if err := m.PiecesEnd(); err != nil {
				t.Errorf("%s in pieces of %d bytes: %v", v.Name, size, err)
			}
			u, source, _ := m.Final(format.Complete, start)
			if u[pricing.InputTokens] != v.Input || u[pricing.Searches] != v.Searches || u[pricing.Documents] != v.Documents || source != v.Source {
				t.Errorf("%s in pieces of %d bytes: %v by %s", v.Name, size, u, source)
			}
		}
	}
}
