package gateway

import (
	"net/url"
	"slices"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// quoted is the size of a request for which a client wants a quote. Searches and Documents
// are for rerank requests.
type quoted struct {
	Input     int64 `json:"input_tokens"`
	Output    int64 `json:"max_tokens"`
	Searches  int64 `json:"searches,omitempty"`
	Documents int64 `json:"documents,omitempty"`
}

// quotedFor reads from the query the size of a request to a model. The query's path names one
// API of the model; without it the quote is for any API of the model. Output is 0 if none of
// these APIs generates text.
func (m *model) quotedFor(query url.Values) (q quoted, err error) {
	through := m.formats
	if path := query.Get("path"); path != "" {
		through = slices.DeleteFunc(slices.Clone(through), func(f format.Format) bool { return !slices.Contains(f.Paths(), path) })
		if len(through) == 0 {
			return q, otherAPI(m)
		}
	}
	for _, p := range []struct {
		name string
		into *int64
		def  int64
	}{
		{"input_tokens", &q.Input, 0}, {"max_tokens", &q.Output, m.Limits.MaxCompletion}, {"searches", &q.Searches, 0}, {"documents", &q.Documents, 0},
	} {
		var ok bool
		if *p.into, ok = parseCount(query.Get(p.name), p.def); !ok {
			return q, problem.InvalidParam(p.name, p.name+" must be a plain number")
		}
	}
	switch most := m.Limits.MaxCompletion; {
	case !slices.ContainsFunc(through, format.Generates):
		q.Output = 0
	case most > 0:
		q.Output = min(q.Output, most)
	}
	return q, nil
}

// units returns the most units that such a request uses. gpuSlice is the GPU time held at
// once, in µs; 0 where GPU time costs nothing.
func (q quoted) units(gpuSlice int64) pricing.Units {
	return pricing.Units{pricing.InputTokens: q.Input, pricing.OutputTokens: q.Output, pricing.Calls: 1,
		pricing.Searches: q.Searches, pricing.Documents: q.Documents, pricing.GPUMicros: gpuSlice}
}
