package inference

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
)

const (
	// specialsPerText and specialsPerPair are how many special tokens the server adds to a text to
	// embed and to a pair of texts to score.
	specialsPerText = 2
	specialsPerPair = 3

	defaultDimensions = 64
	maxDimensions     = 4096
	maxTexts          = 2048
)

// task is a checked request that reads texts and generates no text.
type task struct {
	tokens int            // tokens read in total
	answer map[string]any // the answer without its usage
}

// reads serves a request that reads texts. parse checks the request and makes a task of it. As for
// a chat, the request waits for a slot and then for the time that its prompt takes.
func (s *Server) reads(parse func(o object) (*task, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, o, err := readObject(r)
		rec := s.record(r, body)
		var p *plan
		if err == nil {
			p, err = s.planFor(r)
		}
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
		t, err := parse(o)
		if err == nil {
			err = s.checkModel(o)
		}
		if err != nil {
			writeError(w, err)
			return
		}
		s.perform(w, r, &answer{s: s, plan: p, rec: rec}, t)
	}
}

// checkModel refuses every model name except the server's own.
func (s *Server) checkModel(o object) error {
	name := s.cfg.Model
	if err := o.get("model", &name); err != nil || name == s.cfg.Model {
		return err
	}
	return &apiError{http.StatusNotFound, "NotFoundError", "The model `" + name + "` does not exist."}
}

// perform waits for a slot, reads the texts and sends the answer.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, a *answer, t *task) {
	switch err := s.slots.acquire(r.Context(), 1); {
	case errors.Is(err, errQueueFull):
		s.count.refused.Add(1)
		s.update(a.rec, func(rec *Recorded) { rec.Outcome = "refused" })
		writeError(w, &apiError{http.StatusServiceUnavailable, "ServiceUnavailableError", "The server is overloaded: its queue is full. Try again later."})
		return
	case err != nil:
		s.cancel(a.rec)
		return
	}
	s.count.promptTokens.Add(int64(t.tokens))
	s.update(a.rec, func(rec *Recorded) { rec.PromptTokens, rec.Outcome = t.tokens, "running" })
	step := pacer{s: s, idle: func() error { return nil }}
	err := step.prefill(r.Context(), t.tokens)
	s.slots.release(1)
	if err == nil {
		if !a.plan.noUsage {
			t.answer["usage"] = json.RawMessage(a.plan.appendUsage(nil, a.plan.usage, t.tokens, 0))
		}
		t.answer["model"] = s.cfg.Model
		var body []byte
		if body, err = json.Marshal(t.answer); err == nil {
			err = a.deliver(r.Context(), w, body)
		}
	}
	switch {
	case errors.Is(err, errFault):
		s.update(a.rec, func(rec *Recorded) { rec.Outcome = "fault" })
		abort(w, a.plan.reset)
	case errors.Is(err, errOver):
		s.update(a.rec, func(rec *Recorded) { rec.Outcome = "fault" })
	case err != nil:
		s.cancel(a.rec)
	default:
		s.update(a.rec, func(rec *Recorded) { rec.Outcome = "complete" })
	}
}

// parseEmbeddings reads POST /v1/embeddings.
func (s *Server) parseEmbeddings(o object) (*task, error) {
	var raw json.RawMessage
	encoding, dimensions := "float", defaultDimensions
	if err := errors.Join(o.get("input", &raw), o.get("encoding_format", &encoding), o.get("dimensions", &dimensions)); err != nil {
		return nil, err
	}
	if dimensions < 1 || dimensions > maxDimensions {
		return nil, badRequest("dimensions must be within 1..%d", maxDimensions)
	}
	inputs, special, err := s.inputs(raw)
	if err != nil {
		return nil, err
	}
	t, data := &task{}, make([]any, len(inputs))
	for i, ids := range inputs {
		if len(ids)+special > s.cfg.MaxModelLen {
			return nil, badRequest("This model's maximum context length is %d tokens. However, input %d has %d.", s.cfg.MaxModelLen, i, len(ids)+special)
		}
		t.tokens += len(ids) + special
		var vector any = embed(ids, dimensions)
		if encoding == "base64" {
			vector = packed(embed(ids, dimensions))
		}
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": vector}
	}
	t.answer = map[string]any{"object": "list", "data": data}
	return t, nil
}

// inputs reads the four forms of input. special is the number of special tokens that the server
// adds to each text.
func (s *Server) inputs(raw json.RawMessage) (ids [][]int, special int, err error) {
	var text string
	var texts []string
	var list []int
	switch {
	case json.Unmarshal(raw, &text) == nil:
		texts = []string{text}
	case json.Unmarshal(raw, &texts) == nil:
	case json.Unmarshal(raw, &list) == nil:
		ids = [][]int{list}
	case json.Unmarshal(raw, &ids) == nil:
	default:
		return nil, 0, badRequest("input must be a text, a list of texts, or token ids")
	}
	if ids == nil {
		special = specialsPerText
		for _, text := range texts {
			ids = append(ids, s.model.tok.Encode(text))
		}
	}
	if len(ids) == 0 || len(ids) > maxTexts {
		return nil, 0, badRequest("input must have 1 to %d elements", maxTexts)
	}
	return ids, special, nil
}

// embed returns the vector of a list of tokens. The vector has length 1. The same tokens always
// give the same vector. Texts that share tokens have vectors that are near each other.
func embed(ids []int, dimensions int) []float32 {
	v := make([]float32, dimensions)
	for _, id := range ids {
		h := fnv.New64a()
		_, _ = h.Write(binary.LittleEndian.AppendUint32(nil, uint32(id))) // Write never fails
		seed := h.Sum64()
		for i := range v {
			seed = seed*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
			v[i] += float32(int32(seed>>33)-1<<30) / (1 << 30)
		}
	}
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		v[0], sum = 1, 1
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// packed returns a vector as base64 of its float32 values in little-endian order.
func packed(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// parseRerank reads POST /v1/rerank.
func (s *Server) parseRerank(o object) (*task, error) {
	var query string
	var documents []string
	var top int
	if err := errors.Join(o.get("query", &query), o.get("documents", &documents), o.get("top_n", &top)); err != nil {
		return nil, err
	}
	if len(documents) == 0 || len(documents) > maxTexts {
		return nil, badRequest("documents must have 1 to %d elements", maxTexts)
	}
	t := &task{}
	scores := make([]float64, len(documents))
	order := make([]int, len(documents))
	for i, document := range documents {
		order[i], scores[i] = i, s.score(t, query, document)
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(math.Copysign(2, scores[b]-scores[a])) })
	if top > 0 {
		order = order[:min(top, len(order))]
	}
	results := make([]any, len(order))
	for i, at := range order {
		results[i] = map[string]any{"index": at, "document": map[string]any{"text": documents[at]}, "relevance_score": scores[at]}
	}
	t.answer = map[string]any{"id": "rerank-1", "results": results}
	return t, nil
}

// parseScore reads POST /v1/score. The request scores one text with each of several texts, or two
// lists of texts pair by pair.
func (s *Server) parseScore(o object) (*task, error) {
	one, err := texts(o, "text_1")
	if err != nil {
		return nil, err
	}
	others, err := texts(o, "text_2")
	if err != nil {
		return nil, err
	}
	if len(one) == 0 || len(others) == 0 || len(one) != 1 && len(one) != len(others) {
		return nil, badRequest("text_1 and text_2 must have as many elements, or text_1 one")
	}
	t, data := &task{}, make([]any, len(others))
	for i, other := range others {
		data[i] = map[string]any{"index": i, "object": "score", "score": s.score(t, one[i%len(one)], other)}
	}
	t.answer = map[string]any{"id": "score-1", "object": "list", "data": data}
	return t, nil
}

// texts reads a member that is a text or a list of texts.
func texts(o object, name string) (list []string, err error) {
	var one string
	if json.Unmarshal(o[name], &one) == nil {
		return []string{one}, nil
	}
	return list, o.get(name, &list)
}

// score returns how near two texts are, from 0 to 1. It adds the tokens that it reads to t.
func (s *Server) score(t *task, a, b string) float64 {
	x, y := s.model.tok.Encode(a), s.model.tok.Encode(b)
	t.tokens += len(x) + len(y) + specialsPerPair
	v, w := embed(x, defaultDimensions), embed(y, defaultDimensions)
	var dot float64
	for i := range v {
		dot += float64(v[i]) * float64(w[i])
	}
	return (1 + dot) / 2
}
