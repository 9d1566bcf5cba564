package gateway

import (
	"net/http"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"sluice.example/sluice/l402"
)

// The gateway remembers at most maxProven credentials, of at most maxProvenSize bytes each. A
// credential as clients send it has about 600 bytes and takes some 2 KiB here with its token. The
// costliest credential takes 16 KiB, because it lists hundreds of one-letter models, so that all of
// them take at most 64 MiB.
const (
	maxProven     = 4096
	maxProvenSize = 2 << 10
)

// proven remembers the credentials that were proven last, because an agent sends the same
// credential with each of its calls. To prove a credential takes some fifty times as long as to
// find it here (BenchmarkProof). Only a proven credential is remembered, so that only callers who
// have paid can fill proven. A token in proven is shared by all requests that send its
// credential, and nobody may change it.
type proven struct {
	keys *l402.Keyring // immutable, so that what was proven once remains proven

	mu     sync.Mutex
	tokens *simplelru.LRU[sent, *l402.Token]
}

// sent is a credential as the client sent it: the name and the value of its header.
type sent struct{ name, value string }

func newProven(keys *l402.Keyring) *proven {
	tokens, err := simplelru.NewLRU[sent, *l402.Token](maxProven, nil)
	if err != nil {
		panic(err) // cannot happen, because maxProven is above 0
	}
	return &proven{keys: keys, tokens: tokens}
}

// token returns the token of the credential in the header h of a request. Without a credential,
// the token and the error are nil. The errors are those of l402.CredentialFromHeader and
// l402.Keyring.Verify.
func (p *proven) token(h http.Header) (*l402.Token, error) {
	s, one := onlyCredential(h)
	if one {
		if t := p.known(s); t != nil {
			return t, nil
		}
	}
	credential, err := l402.CredentialFromHeader(h)
	if err != nil || credential == nil {
		return nil, err
	}
	t, err := p.keys.Verify(credential)
	if err != nil {
		return nil, err
	}
	if one && len(s.value) <= maxProvenSize {
		p.remember(s, t)
	}
	return t, nil
}

func (p *proven) known(s sent) *l402.Token {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, _ := p.tokens.Get(s)
	return t
}

func (p *proven) remember(s sent, t *l402.Token) {
	s.value = strings.Clone(s.value) // the header may share memory with the whole request
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens.Add(s, t)
}

// credentialHeaders are the headers in which a credential may be.
var credentialHeaders = l402.CredentialHeaders()

// onlyCredential returns the value of the request's only header that may hold a credential. one is
// false if there is no such header, or if there are two values, which may contradict each other.
func onlyCredential(h http.Header) (s sent, one bool) {
	for _, name := range credentialHeaders {
		values := h[name]
		if len(values) > 1 || len(values) == 1 && one {
			return sent{}, false
		}
		if len(values) == 1 {
			s, one = sent{name, values[0]}, true
		}
	}
	return s, one
}
