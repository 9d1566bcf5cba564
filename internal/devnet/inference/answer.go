package inference

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"time"
)

// errFault reports that a scripted fault ended the answer.
var errFault = errors.New("scripted fault")

// answer is one request that has its slots.
type answer struct {
	s         *Server
	plan      *plan
	q         *chatRequest
	rec       *Recorded
	id        string
	created   int64
	sequences []*sequence
	generated int // tokens of all sequences
	freed     bool
}

// sequence is one choice of an answer.
type sequence struct {
	index   int
	sampler *sampler
	limit   int
	stops   []string
	tokens  int
	held    string // text that may turn out to begin a stop sequence
	finish  string // "stop" or "length" once it is over
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	s.generate(w, r, "chatcmpl-", s.parseChat)
}

// generate answers a request that parse checks.
func (s *Server) generate(w http.ResponseWriter, r *http.Request, id string, parse func(object) (*chatRequest, error)) {
	s.count.requests.Add(1)
	body, o, err := readObject(r)
	rec := s.record(r, body)
	if err != nil {
		writeError(w, err)
		return
	}
	p, err := s.planFor(r)
	if err != nil {
		writeError(w, err)
		return
	}
	if p.beforeAnswer(w, r) {
		s.update(rec, func(rec *Recorded) { rec.Outcome = "fault" })
		if p.drop {
			abort(w, p.reset)
		}
		return
	}
	if r.Context().Err() != nil {
		s.cancel(rec)
		return
	}
	q, err := parse(o)
	if err != nil {
		writeError(w, err)
		return
	}
	err = s.slots.acquire(r.Context(), q.bestOf)
	switch {
	case errors.Is(err, errQueueFull):
		s.count.refused.Add(1)
		s.update(rec, func(rec *Recorded) { rec.Outcome = "refused" })
		w.Header().Set("Retry-After", "1")
		writeError(w, &apiError{http.StatusServiceUnavailable, "ServiceUnavailableError", "The server is overloaded: its queue is full. Try again later."})
		return
	case err != nil:
		s.cancel(rec)
		return
	}
	s.answer(w, r, &answer{s: s, plan: p, q: q, rec: rec, id: id + rand.Text(), created: time.Now().Unix()})
}

func (s *Server) cancel(rec *Recorded) {
	s.count.cancelled.Add(1)
	s.update(rec, func(rec *Recorded) { rec.Outcome = "cancelled" })
}

// answer runs with the slots taken.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, a *answer) {
	prompt := a.q.promptTokens()
	s.count.promptTokens.Add(int64(prompt))
	s.count.cachedTokens.Add(int64(prompt))
	s.update(a.rec, func(rec *Recorded) { rec.PromptTokens, rec.Outcome = prompt, "running" })
	defer a.free()
	a.begin()
	var err error
	if a.q.stream {
		err = a.stream(r.Context(), w)
	} else {
		err = a.unary(r.Context(), w)
	}
	outcome := "complete"
	switch {
	case errors.Is(err, errFault), errors.Is(err, errOver):
		outcome = "fault"
	case err != nil:
		s.cancel(a.rec)
		return
	}
	s.update(a.rec, func(rec *Recorded) { rec.Outcome = outcome })
	if errors.Is(err, errFault) {
		abort(w, a.plan.reset)
	}
}

func (a *answer) begin() {
	openings := a.s.model.openings(a.q.question, openingChoices)
	limit := a.q.maxTokens + a.plan.extraTokens
	if a.plan.empty {
		limit = 0
	}
	for i := range a.q.bestOf {
		if a.q.prompts != nil && i%a.q.perPrompt == 0 {
			openings = a.s.model.openings(a.q.prompts[i/a.q.perPrompt].text, openingChoices)
		}
		a.sequences = append(a.sequences, &sequence{index: i, limit: limit, stops: a.q.stops,
			sampler: a.s.model.newSampler(a.q.how, openings, i)})
	}
}

// free gives the slots back, once: after the last token and before the end of
// the answer is written, so that a client that has it finds them free.
func (a *answer) free() {
	if !a.freed {
		a.freed = true
		a.s.count.cachedTokens.Add(int64(-a.q.promptTokens() - a.generated))
		a.s.slots.release(a.q.bestOf)
	}
}

// generate runs all sequences to their end at the server's pace. It hands the
// text of each token to emit, which is empty while a stop sequence may be in
// the making, calls idle before it waits, and fails when the client hangs up
// or one of them fails.
func (a *answer) generate(ctx context.Context, emit func(q *sequence, text string) error, idle func() error) error {
	pace := pacer{s: a.s, idle: idle}
	if err := pace.prefill(ctx, a.q.promptTokens()); err != nil {
		return err
	}
	for first, live := true, len(a.sequences); live > 0; first = false {
		if !first {
			if err := pace.next(ctx); err != nil {
				return err
			}
		}
		live = 0
		for _, q := range a.sequences {
			if q.finish != "" {
				continue
			}
			before := q.tokens
			text := q.step(a.s.model.tok)
			a.counted(q.tokens - before)
			if err := emit(q, text); err != nil {
				return err
			}
			if q.finish == "" {
				live++
			}
		}
	}
	return nil
}

func (a *answer) counted(tokens int) {
	a.generated += tokens
	a.s.count.generatedTokens.Add(int64(tokens))
	a.s.count.cachedTokens.Add(int64(tokens))
	if a.s.cfg.Record {
		a.s.update(a.rec, func(rec *Recorded) { rec.CompletionTokens += tokens })
	}
}

// step generates one token and gives the text that may be delivered now.
func (q *sequence) step(tok *Tokenizer) (text string) {
	if q.limit == 0 {
		q.finish = "stop"
		return ""
	}
	id, end := q.sampler.next()
	if end {
		q.finish = "stop"
		return q.release(len(q.held))
	}
	q.tokens++
	q.held += tok.pieces[id]
	if at := firstStop(q.held, q.stops); at >= 0 {
		q.finish = "stop"
		return q.release(at)
	}
	if q.tokens >= q.limit {
		q.finish = "length"
		return q.release(len(q.held))
	}
	return q.release(len(q.held) - stopInMaking(q.held, q.stops))
}

func (q *sequence) release(n int) string {
	text := q.held[:n]
	q.held = q.held[n:]
	return text
}

// firstStop is where the first stop sequence begins in s, or -1.
func firstStop(s string, stops []string) int {
	first := -1
	for _, stop := range stops {
		if at := strings.Index(s, stop); at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	return first
}

// stopInMaking is the length of the longest end of s that begins a stop
// sequence.
func stopInMaking(s string, stops []string) int {
	longest := 0
	for _, stop := range stops {
		for n := min(len(stop)-1, len(s)); n > longest; n-- {
			if strings.HasSuffix(s, stop[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}
