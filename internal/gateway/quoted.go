package gateway

import (
	"net/url"
	"slices"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// quoted is what a quote is asked for. Searches and documents are those of a rerank.
type quoted struct {
	Input     int64 `json:"input_tokens"`
	Output    int64 `json:"max_tokens"`
	Searches  int64 `json:"searches,omitempty"`
	Documents int64 `json:"documents,omitempty"`
}

// quotedFor reads what a quote of a model is asked for. path names one of its APIs, and
// where it is missing all of them are meant. No completion is quoted where the model
// writes none.
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

// units is what such a request can use, at rates that may count GPU time.
func (q quoted) units(gpuSlice int64) pricing.Units {
	return pricing.Units{pricing.InputTokens: q.Input, pricing.OutputTokens: q.Output, pricing.Calls: 1,
		pricing.Searches: q.Searches, pricing.Documents: q.Documents, pricing.GPUMicros: gpuSlice}
}
