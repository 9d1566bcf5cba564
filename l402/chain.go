package l402

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
)

// macaroonKeyLabel is the fixed key with which a macaroon's root key is
// derived from whatever the service uses as one. Source: libmacaroons.
const macaroonKeyLabel = "macaroons-key-generator"

// maxSignatures is how many signatures along a macaroon are remembered. A
// macaroon within the limits on added caveats cannot have more caveats: 4
// minted, 16 added, and as many preimage= caveats (77 bytes each) as fit into
// maxTokenSize. It keeps a forged macaroon of many caveats cheap.
const maxSignatures = 128

// chain computes the signatures along a macaroon. The macaroon library keeps
// only the last one, and sub-budgets are named by the ones before. It reuses
// one SHA-256 state, since verification runs on each request. Not safe for
// concurrent use.
type chain struct {
	sha   hash.Hash
	block [64]byte
	sum   [32]byte
	at    [][32]byte // at[i]: signature after caveat i, the first maxSignatures
}

func newChain() *chain { return &chain{sha: sha256.New()} }

// mac sets sum to HMAC-SHA256 (RFC 2104) of the concatenated parts. The key is
// at most one SHA-256 block long.
func (c *chain) mac(key []byte, parts ...[]byte) {
	c.pad(key, 0x36)
	for _, p := range parts {
		c.sha.Write(p)
	}
	c.sha.Sum(c.block[:0]) // the inner hash, on its way into sum
	copy(c.sum[:], c.block[:32])
	c.pad(key, 0x5c)
	c.sha.Write(c.sum[:])
	c.sha.Sum(c.sum[:0])
}

// pad starts a hash with the key XORed with a byte.
func (c *chain) pad(key []byte, x byte) {
	n := copy(c.block[:], key)
	clear(c.block[n:])
	for i := range c.block {
		c.block[i] ^= x
	}
	c.sha.Reset()
	c.sha.Write(c.block[:])
}

// sign computes the signatures of m under rootKey and leaves the final one in
// sum.
func (c *chain) sign(rootKey []byte, m rawMacaroon) {
	c.mac([]byte(macaroonKeyLabel), rootKey)
	key := c.sum
	c.mac(key[:], m.id)
	if c.at == nil {
		c.at = make([][32]byte, min(len(m.caveats), maxSignatures))
	}
	for i, caveat := range m.caveats {
		key = c.sum
		if caveat.verification == nil {
			c.mac(key[:], caveat.id)
		} else {
			c.mac(key[:], caveat.verification)
			v := c.sum
			c.mac(key[:], caveat.id)
			id := c.sum
			c.mac(key[:], v[:], id[:])
		}
		if i < len(c.at) {
			c.at[i] = c.sum
		}
	}
}

// signed reports in constant time whether the chain ends in signature.
func (c *chain) signed(signature []byte) bool { return hmac.Equal(c.sum[:], signature) }
