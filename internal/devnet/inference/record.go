package inference

import (
	"net/http"
	"slices"
	"sync"
)

// maxRecorded is how many requests are kept, the newest.
const maxRecorded = 1024

// Recorded is one POST as the server received it and, for a chat request, what
// became of it. The true token counts are there whatever usage the answer
// claimed.
type Recorded struct {
	Path   string
	Header http.Header
	Body   []byte

	PromptTokens     int    // 0 when the request was refused
	CompletionTokens int    // generated, delivered or not
	Outcome          string // "", "running", "complete", "cancelled", "refused", "fault"
}

type recorder struct {
	mu   sync.Mutex
	list []*Recorded
}

// Requests are the newest requests, oldest first; none without Config.Record.
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

// update changes a record that Requests may be reading.
func (s *Server) update(rec *Recorded, change func(*Recorded)) {
	s.count.recorded.mu.Lock()
	defer s.count.recorded.mu.Unlock()
	change(rec)
}
