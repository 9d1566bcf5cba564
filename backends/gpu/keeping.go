package gpu

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A server may close a connection that it keeps at any moment, and a request
// that crosses the close on its way is lost without a trace of whether it was
// taken. So that this does not happen, a connection is used again only where the
// server has shown that it keeps one, and only for a while that is well within
// the time for which it does.
const (
	// keepsFor is how long a first connection has to stay open, unused, before
	// connections to that server are used again at all.
	keepsFor = time.Second
	// keepRetry is how long a server that closed one sooner is not tried again, at
	// first; it doubles up to keepRetryMost.
	keepRetry, keepRetryMost = time.Second, time.Minute
	// keepForget is how long a limit that was learnt is kept to.
	keepForget = 10 * time.Minute
)

// keeping is what is known of how long a server keeps connections.
type keeping struct {
	mu       sync.Mutex
	trusted  bool
	scouting bool      // a connection is out to see
	retryAt  time.Time // when the next may go
	retry    time.Duration
	limit    time.Duration // a connection is used only if it was idle for less; zero: idleConn
	until    time.Time     // of limit
}

// use says whether a request may use a kept connection, and whether it is sent
// as a scout: on a connection that is then watched.
func (k *keeping) use(now time.Time) (kept, scout bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.trusted && !k.scouting && !now.Before(k.retryAt) {
		k.scouting = true
		return false, true
	}
	return k.trusted, false
}

// trust ends the doubt: a connection was kept, or the protocol says itself when
// it ends (HTTP/2).
func (k *keeping) trust() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trusted, k.scouting, k.retry = true, false, 0
}

// unknown ends a scout that saw nothing: its connection was not kept at all.
func (k *keeping) unknown() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.scouting = false
}

// closed learns that the server closed a connection which was idle for so long.
func (k *keeping) closed(idle time.Duration, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case idle < keepsFor:
		k.trusted, k.scouting = false, false
		k.retry = min(max(2*k.retry, keepRetry), keepRetryMost)
		k.retryAt = now.Add(k.retry)
	case idle < idleConn && (k.limit == 0 || now.After(k.until) || idle/2 < k.limit):
		k.limit, k.until = idle/2, now.Add(keepForget)
	}
}

// most is how long a connection may have been idle to be used.
func (k *keeping) most(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.limit > 0 && now.Before(k.until) {
		return k.limit
	}
	return idleConn
}

// promised is how long the server says that it keeps the connection of an
// answer; zero: it does not say. RFC 2068 19.7.1, as servers still send it:
// Keep-Alive: timeout=5, max=100.
func promised(h http.Header) time.Duration {
	for _, value := range h["Keep-Alive"] {
		for part := range strings.SplitSeq(value, ",") {
			name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
			if !strings.EqualFold(name, "timeout") {
				continue
			}
			if seconds, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 31); err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return 0
}

// within is how long of what was promised may be used: the promise began when
// the server sent its answer, and ends when the request arrives there.
func within(promise time.Duration) time.Duration {
	return max(promise-time.Second, promise/2)
}
