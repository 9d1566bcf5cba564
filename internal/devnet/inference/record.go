package inference

import (
	"net/http"
	"slices"
	"sync"
)

// maxRecorded is how many requests are kept. The newest are kept.
const maxRecorded = 1024

// Recorded is one POST as the server received it and, for a chat request, its outcome. It has the
// true token counts, even if the usage in the answer was false.
type Recorded struct {
	Path   string
	Header http.Header
	Body   []byte

	PromptTokens     int    // 0 when the request was refused
	CompletionTokens int    // generated tokens, delivered or not
	Outcome          string // "", "running", "complete", "cancelled", "refused", "fault"
}

type recorder struct {
	mu   sync.Mutex
	list []*Recorded
}

// Requests returns the newest requests, oldest first. Without Config.Record it returns an empty
// list.
func (s *Server) Requests() []Recorded {
	s.count.recorded.mu.Lock()
	defer s.count.recorded.mu.Unlock()
	out := make([]Recorded, 0, len(s.count.recorded.list))
	for _, r := range s.count.recorded.list {
		out = append(out, *r)
	}
	return out
}

func (s *Server) record(r *http.Request, body []byte) *Recorded {
	rec := &Recorded{Path: r.URL.Path, Header: r.Header.Clone(), Body: slices.Clone(body)}
	if s.cfg.Record {
		s.count.recorded.mu.Lock()
		defer s.count.recorded.mu.Unlock()
		list := append(s.count.recorded.list, rec)
		s.count.recorded.list = list[max(0, len(list)-maxRecorded):]
	}
	return rec
}

// update changes a record. Requests may read the record at the same time.
func (s *Server) update(rec *Recorded, change func(*Recorded)) {
	s.count.recorded.mu.Lock()
	defer s.count.recorded.mu.Unlock()
	change(rec)
}
