package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// FuzzDialects plays a stream in one of the dialects to a meter, up to any point,
// and checks the charge: exact when a usage came; within a quarter, or one event, of
// what was delivered where an event is a token, whatever was learned, or where 20
// answers have taught how many tokens it is, though of another length; elsewhere
// never above the hold and never below the events.
func FuzzDialects(f *testing.F) {
	for i := range dialects {
		for seed := range uint64(4) {
			f.Add(uint8(i), seed, uint16(seed*7), uint8(seed))
			f.Add(uint8(i), seed, uint16(math.MaxUint16), uint8(seed))
		}
	}
	f.Fuzz(func(t *testing.T, dialect uint8, seed uint64, cut uint16, how uint8) {
		d := dialects[int(dialect)%len(dialects)]
		p := d.play(newScript(seed))
		heard := newListener(p)
		whole := heard.listen(t, p, int(cut), how)
		heard.check(t, fmt.Sprintf("%s, seed %d, cut at %d of %d, %d", d.name, seed, cut, len(p.pieces), how), p, whole, how)
	})
}

// listener is a client and what it got.
type listener struct {
	meter  *openai.Meter
	bound  format.Bound
	got    []piece
	gather *openai.Gathering
	failed bool
	last   pricing.Units
}

// asking holds one request for each number of completions: Parse and Bound are
// fuzzed elsewhere.
var asking = sync.OnceValue(func() (all [5]struct {
	request *openai.Request
	bound   format.Bound
}) {
	for n := range all {
		r, err := openai.Parse(ask(fmt.Sprintf(`"stream":true,"n":%d,"max_tokens":200`, max(1, n))))
		if err != nil {
			panic(err)
		}
		b, err := r.Bound(limits)
		if err != nil {
			panic(err)
		}
		all[n].request, all[n].bound = r, b
	}
	return all
})

// lesson is what a server has said 20 times, each time to another account.
type lesson struct {
	length, perDelta int // bytes of a token, tokens in an event
	document         bool
}

var (
	taught   = map[lesson]*format.Calibration{}
	teaching sync.Mutex
)

// lessons is what 20 answers have taught.
func lessons(l lesson) *format.Calibration {
	teaching.Lock()
	defer teaching.Unlock()
	if cal := taught[l]; cal != nil {
		return cal
	}
	cal := format.NewCalibration()
	a := asking()[1]
	words, usage := strings.Repeat("a", l.length*l.perDelta), fmt.Sprintf(`"usage":{"prompt_tokens":12,"completion_tokens":%d}`, 12*l.perDelta)
	for voter := range uint64(20) {
		m := openai.NewMeter(a.request, a.bound, cal, format.MeterOptions{Start: start, Voter: voter})
		if l.document {
			if _, err := m.Unary([]byte(`{"choices":[{"message":{"content":"` + strings.Repeat(words, 12) + `"}}],` + usage + `}`)); err != nil {
				panic(err)
			}
		} else {
			for range 12 {
				pass(m, content(words, ""))
			}
			pass(m, finish, `data: {"choices":[],`+usage+"}\n\n", done)
		}
		m.Final(format.Complete, start)
	}
	taught[l] = cal
	return cal
}

func newListener(p *play) *listener {
	a := asking()[p.n]
	var cal *format.Calibration
	if p.taught > 0 {
		cal = lessons(lesson{p.taught, p.perDelta, p.documents})
	}
	return &listener{bound: a.bound, gather: new(openai.Gathering), meter: openai.NewMeter(a.request, a.bound, cal, format.MeterOptions{
		Start: start, Now: func() time.Time { return start.Add(time.Second) },
		ContinuousUsage: p.running, UsagePerSequence: p.sequences, Timings: p.timings})}
}

// listen reads the first pieces of a play and half of the next one; it reports
// whether it heard the end.
func (l *listener) listen(t *testing.T, p *play, cut int, how uint8) (whole bool) {
	var stream bytes.Buffer
	cut = min(cut, len(p.pieces))
	for _, piece := range p.pieces[:cut] {
		stream.WriteString(piece.raw)
	}
	l.got = p.pieces[:cut]
	if cut < len(p.pieces) {
		raw := p.pieces[cut].raw
		stream.WriteString(raw[:min(len(raw)/2, strings.Index(raw, "data:")+3)])
	}
	events := format.NewEvents(&stepReader{stream.Bytes(), 16 + 31*int(how%8)}, 0)
	for {
		event, err := events.Next()
		if err != nil && !(errors.Is(err, format.ErrPartial) && format.Whole(event)) {
			return false
		}
		out, last := l.meter.Event(event)
		if last {
			return true
		}
		if l.failed = l.meter.Failed(); l.failed {
			return false
		}
		if data := l.meter.Data(); data != nil {
			l.gather.Add(data)
		}
		if out == nil {
			continue
		}
		checkFrame(t, out)
		l.meter.Delivered()
		u, _ := l.meter.Running()
		if u[pricing.OutputTokens] < l.last[pricing.OutputTokens] {
			t.Fatalf("the count shrank from %d to %d", l.last[pricing.OutputTokens], u[pricing.OutputTokens])
		}
		l.last = u
	}
}

// checkFrame checks that no SDK stumbles over what it gets.
func checkFrame(t *testing.T, out []byte) {
	if out[0] == ':' && bytes.IndexByte(out, '\n') == len(out)-1 {
		return
	}
	if !bytes.HasPrefix(out, []byte("data: {")) && !bytes.HasPrefix(out, []byte("event: message\ndata: {")) ||
		!bytes.HasSuffix(out, []byte("}\n\n")) && !bytes.HasSuffix(out, []byte("\nevent: message\n\n")) || bytes.IndexByte(out, '\r') >= 0 ||
		bytes.Contains(out, []byte("\nid:")) || bytes.Contains(out, []byte("NaN")) || bytes.Contains(out, []byte("Infinity")) {
		t.Fatalf("the client gets %q", out)
	}
}

// check compares the charge with what is true.
func (l *listener) check(t *testing.T, name string, p *play, whole bool, how uint8) {
	end := format.Complete
	switch {
	case l.failed || !whole && how%2 == 0:
		end = format.BackendCut
	case !whole:
		end = format.ClientGone
	}
	switch finished := l.meter.Finished(); {
	case finished && p.unfinished || whole && !finished && !p.unfinished:
		t.Fatalf("%s: finished %v", name, finished)
	case whole && !finished:
		end = format.BackendCut
	}
	tokens, deltas, usages := 0, 0, 0
	for _, piece := range l.got {
		tokens, deltas = tokens+piece.tokens, deltas+piece.deltas
		if piece.usage {
			usages++
		}
	}
	exact := p.running || usages > 0 && (!p.sequences || usages == p.n)
	if usages > 0 {
		tokens += p.extra
	}
	running, _ := l.meter.Running()
	u, source, clamped := l.meter.Final(end, start.Add(2*time.Second))
	fail := func(what string) {
		t.Helper()
		t.Fatalf("%s: %s: charged %+v (%s, clamped %v) for %d tokens in %d events", name, what, u, source, clamped, tokens, deltas)
	}
	switch got := u[pricing.OutputTokens]; {
	case got > l.bound.Output || u[pricing.InputTokens] > l.bound.Input || clamped:
		fail("above the hold")
	case got < int64(deltas):
		fail("below the events")
	case exact && got != int64(tokens):
		fail("not exact")
	case exact && tokens > 0 && u[pricing.InputTokens] != int64(p.prompt):
		fail("not the prompt")
	case !exact && !p.opaque && math.Abs(float64(got)-float64(tokens)) > 0.25*float64(tokens)+float64(p.perDelta):
		fail("far from the truth")
	case end == format.ClientGone && got != running[pricing.OutputTokens] && !(p.noisy && usages > 0):
		fail(fmt.Sprintf("not the running count %d", running[pricing.OutputTokens]))
	}
	if whole && !p.failed && !p.unfinished {
		l.checkDocument(t, name, p)
	}
}

// checkDocument checks that a document made of the stream has all of its text.
func (l *listener) checkDocument(t *testing.T, name string, p *play) {
	var document struct {
		Choices []struct {
			Message struct {
				Content   any
				Reasoning string `json:"reasoning_content"`
			}
			Finish string `json:"finish_reason"`
		}
	}
	body := l.gather.Document(p.sequences, false)
	if err := json.Unmarshal(body, &document); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, body)
	}
	want := make([]string, p.n)
	for _, piece := range p.pieces {
		want[piece.choice] += piece.text
	}
	for i, c := range document.Choices {
		text, plain := c.Message.Content.(string)
		if text += c.Message.Reasoning; plain && len(text) > 0 && text != want[i] {
			t.Fatalf("%s: %q became %q", name, want[i], text)
		}
	}
}

// FuzzDocuments plays documents that are read whole, up to any byte, or not at
// all.
func FuzzDocuments(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint32(seed*90), uint16(seed*500), true)
		f.Add(seed, uint32(math.MaxUint32), uint16(700), false)
	}
	f.Fuzz(func(t *testing.T, seed uint64, cut uint32, millis uint16, silent bool) {
		s := newScript(seed)
		s.n = 1 + s.rng.IntN(4)
		ofAll := s.rng.IntN(2) == 0
		if !ofAll { // then long tokens look like those of several completions
			s.length = 1 + s.length%5
		}
		var choices []string
		for i := range s.n {
			choices = append(choices, fmt.Sprintf(`{"index":%d,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}`, i, s.word(s.tokens)))
		}
		body := []byte(`{"choices":[` + strings.Join(choices, ",") + `],"usage":` + s.usageOf(s.n*s.tokens) + `}`)
		a := asking()[s.n]
		m := openai.NewMeter(a.request, a.bound, nil, format.MeterOptions{Start: start, UsageOfAll: ofAll})
		now := start.Add(time.Duration(millis) * time.Millisecond)
		if silent {
			m.Silent()
		}
		if cut == 0 { // nothing came
			u, source, _ := m.Final(format.UnaryClientGone, now)
			paced := int64(math.Ceil(format.DefaultPace * now.Sub(start).Seconds()))
			switch {
			case silent && u != (pricing.Units{}):
				t.Fatalf("a stall costs %+v", u)
			case !silent && (source != metering.SourcePace || u[pricing.OutputTokens] > min(paced, a.bound.Cap)*int64(s.n) || u[pricing.OutputTokens] > 2*int64(format.DefaultAnswer)*int64(s.n)):
				t.Fatalf("%+v from %s after %d ms", u, source, millis)
			}
			return
		}
		if int(cut) >= len(body) {
			if _, err := m.Unary(body); err != nil {
				t.Fatal(err)
			}
			if u, _, _ := m.Final(format.UnaryClientGone, now); u[pricing.OutputTokens] != int64(s.n*s.tokens) || u[pricing.InputTokens] != int64(s.prompt) {
				t.Fatalf("%+v for %s", u, body)
			}
			return
		}
		m.UnaryPart(body[:cut])
		if u, _, _ := m.Final(format.UnaryClientGone, now); u[pricing.OutputTokens] > a.bound.Output || u[pricing.OutputTokens] < 0 || u[pricing.InputTokens] > a.bound.Input {
			t.Fatalf("%+v for %s", u, body[:cut])
		}
	})
}
