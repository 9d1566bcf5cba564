package inference

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// script returns the plan of each chat request in turn.
type script struct {
	mu    sync.Mutex
	first []*plan
	rest  *plan
}

func newScript(rest string, first []string) (*script, error) {
	s := &script{}
	var err error
	if s.rest, err = parseFaults(rest); err != nil {
		return nil, err
	}
	for _, list := range first {
		p, err := parseFaults(list)
		if err != nil {
			return nil, err
		}
		s.first = append(s.first, p)
	}
	return s, nil
}

func (s *script) next() *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.first) == 0 {
		return s.rest
	}
	p := s.first[0]
	s.first = s.first[1:]
	return p
}

func (s *script) standing() *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rest
}

// Faults sets the faults of all later requests and drops the rest of a script. list is a
// comma-separated list of the names in faults.go, such as "no-usage, cut:5". An empty list means no
// faults. Faults fails for an unknown name or argument.
func (s *Server) Faults(list string) error {
	p, err := parseFaults(list)
	if err != nil {
		return fmt.Errorf("inference server: %w", err)
	}
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	s.script.first, s.script.rest = nil, p
	return nil
}

// planFor returns the faults of one chat request. They come from the request's own header X-Fault
// if that is allowed, and otherwise from the script.
func (s *Server) planFor(r *http.Request) (*plan, error) {
	if own := r.Header.Get("X-Fault"); own != "" && s.cfg.AllowFaults {
		p, err := parseFaults(own)
		if err != nil {
			return nil, badRequest("X-Fault: %v", err)
		}
		return p, nil
	}
	return s.script.next(), nil
}

// beforeAnswer causes the faults that come before the first byte. It reports whether the request
// needs no further answer.
func (p *plan) beforeAnswer(w http.ResponseWriter, r *http.Request) (over bool) {
	if p.stallHeaders != nil && stall(r.Context(), *p.stallHeaders) != nil {
		return false // the client is gone, which is an ordinary cancellation
	}
	if p.hopHeaders {
		h := w.Header()
		h.Set("Connection", "X-Hop, keep-alive")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("X-Hop", "1")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("Proxy-Connection", "keep-alive")
		h.Set("Upgrade", "h2c")
		h.Set("Te", "trailers")
	}
	switch {
	case p.drop:
		return true
	case p.redirect != "":
		http.Redirect(w, r, p.redirect, http.StatusFound)
	case p.status != 0:
		if p.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(p.retryAfter))
		}
		writeError(w, &apiError{p.status, "ScriptedError", "scripted fault"})
	default:
		return false
	}
	return true
}

// stall waits for d. When d is 0, it waits until the client hangs up.
func stall(ctx context.Context, d time.Duration) error {
	if d == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return pause(ctx, d)
}

// abort closes the connection before the answer has ended. With reset it sends a TCP reset if it
// can.
func abort(w http.ResponseWriter, reset bool) {
	if reset {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
				_ = tcp.SetLinger(0) // when this fails, Close closes the connection in the ordinary way
			}
			conn.Close()
			return
		}
	}
	// This panic is net/http's way to close a connection, or to reset an HTTP/2 stream, without
	// ending the answer. net/http recovers it and does not log it.
	panic(http.ErrAbortHandler)
}
