package gpu

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A server may close a kept connection at any moment. If a request and the close cross on their way,
// the request is lost, and nobody can tell whether the server took it. To avoid this, the gateway uses
// a connection again only if the server has shown that it keeps connections, and only for a time well
// below the time for which the server keeps them.
const (
	// keepsFor is how long a first connection must stay open, unused, before the gateway uses
	// connections to that server again at all.
	keepsFor = time.Second
	// keepRetry is how long the gateway waits to try again after a server closed a connection sooner
	// than keepsFor. The wait doubles up to keepRetryMost.
	keepRetry, keepRetryMost = time.Second, time.Minute
	// keepForget is how long the gateway keeps to a limit that it learnt.
	keepForget = 10 * time.Minute
)

// keeping is what is known of how long a server keeps connections.
type keeping struct {
	mu       sync.Mutex
	trusted  bool
	scouting bool      // a scout is under way: see use
	retryAt  time.Time // when the next scout may be sent
	retry    time.Duration
	// limit is the idle time from which a connection is not used any more. Zero means idleConn.
	limit time.Duration
	until time.Time // when limit is forgotten
}

// use returns whether a request may use a kept connection, and whether it is sent as a scout. The
// connection of a scout is watched afterwards, to see whether the server keeps it.
func (k *keeping) use(now time.Time) (kept, scout bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.trusted && !k.scouting && !now.Before(k.retryAt) {
		k.scouting = true
		return false, true
	}
	return k.trusted, false
}

// trust notes that kept connections may be used, because the server kept a connection, or because the
// protocol announces the end of a connection (HTTP/2).
func (k *keeping) trust() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trusted, k.scouting, k.retry = true, false, 0
}

// unknown ends a scout that showed nothing, because its connection was not kept at all.
func (k *keeping) unknown() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.scouting = false
}

// closed learns that the server closed a connection which had been idle for that long.
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

// most returns the longest idle time after which a connection may still be used.
func (k *keeping) most(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.limit > 0 && now.Before(k.until) {
		return k.limit
	}
	return idleConn
}

// promised returns how long the server says that it keeps the connection of an answer. Zero means that
// the server does not say. The header is that of RFC 2068 19.7.1, which servers still send: Keep-Alive:
// timeout=5, max=100.
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

// within returns how much of a promised time may be used. The promise begins when the server sends its
// answer, and it must still hold when the next request arrives at the server.
func within(promise time.Duration) time.Duration {
	return max(promise-time.Second, promise/2)
}
