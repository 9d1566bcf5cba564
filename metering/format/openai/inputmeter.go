package openai

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
	"sluice.example/sluice/pricing"
)

// ErrNotComputed reports a document that is no answer to a request to read texts.
var ErrNotComputed = errors.New("it is no answer to what was asked")

// inputMeter meters the answer to a request to read texts: its prompt tokens, however
// long the answer is.
type inputMeter struct {
	format.OneDocument
	request *inputs
	results *results
	bound   format.Bound
	cal     *format.Calibration
	opts    format.MeterOptions

	outline   *rawjson.Outline
	got       tallies
	delivered tally // what of it the client got
	read      tokensRead
	absurd    bool  // the cached tokens that it says cannot be
	counted   int64 // by the backend's tokenizer; -1: not counted
	ratio     float64
	overflow  int64
}

// tokensRead is what an answer says of itself; 0 is not said.
type tokensRead struct{ prompt, cached, searches int64 }

func newInputMeter(r *inputs, s *results, b format.Bound, cal *format.Calibration, o format.MeterOptions) *inputMeter {
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &inputMeter{request: r, results: s, bound: b, cal: cal, opts: o, counted: -1}
	m.outline = rawjson.NewOutline(s.lists, m.take)
	if o.Public != nil {
		m.outline.Rename(format.MemberModel, o.Public)
	}
	return m
}

// MayBeList implements format.Listing.
func (m *inputMeter) MayBeList() bool { return m.results.bare }

// checkValue checks that v is one JSON value, with the numbers that are no JSON made
// null.
func checkValue(v []byte) ([]byte, error) {
	check := func(v []byte) error {
		if len(v) == 0 {
			return rawjson.Invalid(0)
		}
		end, err := rawjson.CheckValue(v, 0, rawjson.MaxDepth)
		if err == nil && end != len(v) {
			err = rawjson.Invalid(end)
		}
		return err
	}
	err := check(v)
	if err == nil {
		return v, nil
	}
	if repaired := format.RepairNumbers(v); repaired != nil && check(repaired) == nil {
		return repaired, nil
	}
	return nil, err
}

// Unary implements format.Meter.
func (m *inputMeter) Unary(document []byte) ([]byte, error) {
	start, end := rawjson.SkipSpace(document, 0), len(document)
	for end > start && rawjson.SkipSpace(document[end-1:end], 0) == 1 {
		end--
	}
	clean, err := checkValue(document[start:end])
	if err != nil {
		m.Fail(format.Failure{})
		return nil, fmt.Errorf("%w: %w", ErrNotComputed, err)
	}
	clean = m.Piece(clean)
	if err := m.PiecesEnd(); err != nil {
		return nil, err
	}
	return clean, nil
}

// UnaryPart implements format.Meter. A beginning in which no result has begun is no
// part of an answer.
func (m *inputMeter) UnaryPart(part []byte) {
	whole, err := checkValue(rawjson.Complete(part))
	if err != nil {
		return
	}
	m.noteBegun("", whole)
	for c := rawjson.Members(whole); c.More(); {
		if key, value := c.Member(); slices.Contains(m.results.lists, string(key)) {
			m.noteBegun(string(key), value)
		}
	}
}

// noteBegun notes whether a list has a result, be it the beginning of one.
func (m *inputMeter) noteBegun(list string, v []byte) {
	if list == "" && !m.results.bare {
		return
	}
	for e := rawjson.Elements(v); e.More(); {
		if m.results.read(list, e.Value()).computed {
			m.Came(0)
		}
	}
}

// Piece implements format.Pieces.
func (m *inputMeter) Piece(part []byte) []byte {
	err := m.outline.Add(part)
	if err != nil && !m.Failed() {
		m.Fail(format.Failure{})
	}
	part = m.outline.Renamed(part)
	m.Came(len(part))
	return part
}

// PiecesEnd implements format.Pieces.
func (m *inputMeter) PiecesEnd() error {
	rest, err := m.outline.Rest()
	if err == nil {
		rest, err = checkValue(rest)
	}
	if err != nil {
		m.Fail(format.Failure{})
		return fmt.Errorf("%w: %w", ErrNotComputed, err)
	}
	got, failed := m.got.fullest(), false
	for c := rawjson.Members(rest); c.More(); {
		key, value := c.Member()
		failed = failed || isFault(key, value) || got.results == 0 && isSign(key, value)
		m.read.member(string(key), value)
	}
	m.judge(got)
	switch {
	case failed:
		m.Fail(format.FailureOf(rest))
		return ErrNotComputed
	case got.results < m.results.want || got.results == 0:
		m.Fail(format.Failure{})
		return fmt.Errorf("%w: it has %d results, and %d were asked for", ErrNotComputed, got.results, m.results.want)
	}
	m.End()
	return nil
}

// judge drops what the answer says of itself as far as that cannot be true. Where it says
// nothing, its results may.
func (m *inputMeter) judge(got tally) {
	if m.read.prompt <= 0 && got.results >= m.request.count() { // with top_n, only the best say theirs
		m.read.prompt = got.tokens
	}
	if m.absurd = m.read.cached < 0 || m.read.cached > max(0, m.read.prompt); m.absurd {
		m.read.cached = 0
	}
	if !m.canBeRead(m.read.prompt) {
		m.read.prompt = 0
	}
}

// Delivered implements format.Meter.
func (m *inputMeter) Delivered() {
	m.OneDocument.Delivered()
	m.delivered = m.got.fullest()
}

// member reads a member of the answer: usage (OpenAI, vLLM, Jina, llama.cpp), or meta
// (Cohere), where the counts are one level deeper.
func (t *tokensRead) member(key string, v []byte) {
	if v[0] != '{' {
		return
	}
	switch key {
	case "usage":
		t.usage(v)
	case "meta":
		for c := rawjson.Members(v); c.More(); {
			if key, value := c.Member(); string(key) == "tokens" || string(key) == "billed_units" {
				t.usage(value)
			}
		}
	}
}

// usage reads counts. A total stands for the prompt where nothing else is said, because
// nothing was generated.
func (t *tokensRead) usage(v []byte) {
	var total int64
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch string(key) {
		case "prompt_tokens", "input_tokens":
			if n, _ := number(value); n > 0 {
				t.prompt = n
			}
		case "total_tokens":
			total, _ = number(value)
		case "prompt_tokens_details":
			t.cached = detail(value, "cached_tokens")
		case "search_units":
			t.searches, _ = number(value)
		}
	}
	if t.prompt <= 0 {
		t.prompt = total
	}
}

// prompt is the best count of the prompt, within its bound.
func (m *inputMeter) prompt() tokenCount {
	t := tokenCount{source: metering.SourceCounted}
	switch {
	case m.read.prompt > 0:
		t = tokenCount{m.read.prompt, metering.SourceReported}
	case len(m.request.texts) == 0:
		t.tokens = m.request.idTokens(m.bound.Each)
	case m.counted > 0:
		t = tokenCount{m.request.within(m.counted, m.bound.Each), metering.SourceTokenizer}
	case m.bound.Counted > 0:
		t = tokenCount{m.request.within(m.bound.Counted, m.bound.Each), metering.SourceTokenizer}
	default:
		t.tokens = m.likely()
	}
	t.tokens = min(t.tokens, m.bound.Input)
	return t
}

// likely is how many tokens of all texts are read as a rule, by what was learned.
func (m *inputMeter) likely() int64 {
	if m.ratio == 0 { // once, so that a count never shrinks
		if m.ratio = format.DefaultBytesPerToken; m.cal != nil {
			m.ratio = m.cal.Estimates().Prompt
		}
	}
	return m.request.within(m.estimate(m.ratio), m.bound.Each)
}

// usual is what engines usually put around the texts, in tokens.
func (m *inputMeter) usual() int64 { return int64(len(m.request.texts)) * m.request.api.likely }

// estimate is how many tokens all texts have in full, of so many bytes each.
func (m *inputMeter) estimate(bytesPerToken float64) int64 {
	return format.AddSat(format.TokensFor(m.request.PromptBytes(), bytesPerToken), m.usual())
}

// readsAll reports whether the model has read all of each text, as far as their bytes
// tell. A count of texts that were cut says nothing of how many bytes a token has.
func (m *inputMeter) readsAll() bool {
	all := m.estimate(format.DefaultBytesPerToken)
	return readOfEach(m.request.members) == format.MaxInt64 && m.request.within(all, m.bound.Each) == all
}

// Running implements format.Meter: a backend has read all texts before it sends the
// first byte.
func (m *inputMeter) Running() (pricing.Units, metering.Source) {
	if !m.Started() {
		return pricing.Units{}, metering.SourceNone
	}
	t := m.prompt()
	return m.charge(t.tokens, m.opts.Now()), t.source
}

// Final implements format.Meter. An answer costs what was read for it, as it was
// reported or counted; so does one that its client left, unless the backend showed
// nobody a sign of life. Where an answer turned out to be none, or its backend or a
// shutdown broke it off, the results that were delivered before cost their share.
func (m *inputMeter) Final(end format.End, now time.Time) (pricing.Units, metering.Source, bool) {
	if end == format.Complete && !m.Failed() {
		m.Delivered()
	}
	gone := end == format.UnaryClientGone || end == format.ClientGone || end == format.HoldExhausted
	whole := !m.Failed() && (m.Finished() || gone && (m.Started() || !m.IsSilent()))
	if !whole && m.delivered.results == 0 {
		return pricing.Units{}, metering.SourceNone, false
	}
	t := m.prompt()
	m.overflow = max(0, min(m.read.prompt-m.bound.Input, maxExcess))
	clamped := m.overflow > 0 || m.absurd
	reported := end == format.Complete && t.source == metering.SourceReported && !clamped && len(m.request.ids) == 0
	if reported && m.cal != nil && m.readsAll() {
		m.cal.LearnPrompt(m.opts.Voter, m.request.PromptBytes(), t.tokens-m.usual())
	}
	if !whole {
		return m.part(t.tokens, now), t.source, clamped
	}
	return m.charge(t.tokens, now), t.source, clamped
}

// part is the usage to charge for the results that were delivered, of an answer whose
// prompt has so many tokens.
func (m *inputMeter) part(prompt int64, now time.Time) pricing.Units {
	u := m.charge(prompt, now)
	u[pricing.CachedInputTokens] = m.share(u[pricing.CachedInputTokens])
	u[pricing.InputTokens] = m.share(prompt)
	if m.bound.Documents > 0 {
		documents := min(m.bound.Documents, m.delivered.results)
		if m.results.want < m.request.count() {
			documents = max(1, m.share(m.bound.Documents))
		}
		u[pricing.Documents] = documents
		u[pricing.Searches] = min(u[pricing.Searches], searchesFor(documents))
	}
	return u
}

// Excess implements format.Meter.
func (m *inputMeter) Excess() format.Overrun { return format.Overrun{Prompt: m.overflow} }

// charge is the usage to charge for a prompt.
func (m *inputMeter) charge(prompt int64, now time.Time) pricing.Units {
	searches := m.bound.Searches
	if m.read.searches > 0 {
		searches = min(searches, m.read.searches)
	}
	return pricing.Units{
		pricing.InputTokens:       prompt,
		pricing.CachedInputTokens: max(0, min(m.read.cached, prompt)),
		pricing.Calls:             1,
		pricing.Bytes:             m.Sent(),
		pricing.WallMicros:        max(0, now.Sub(m.opts.Start).Microseconds()),
		pricing.Searches:          searches,
		pricing.Documents:         m.bound.Documents,
	}
}

// NeedsTokenizer implements format.Meter.
func (m *inputMeter) NeedsTokenizer() (prompt bool, text string, ok bool) {
	charged := !m.Failed() || m.delivered.results > 0
	prompt = charged && m.read.prompt <= 0 && m.bound.Counted == 0 && len(m.request.texts) > 0
	return prompt, "", prompt
}

// Tokenized implements format.Meter.
func (m *inputMeter) Tokenized(prompt, _ int64) {
	if m.counted = -1; prompt > 0 {
		m.counted = prompt
	}
}
