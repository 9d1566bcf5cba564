package l402

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
)

// macaroonKeyLabel is the fixed HMAC key with which every macaroon library derives the first key of
// a macaroon from the root key that the service supplies. Source: libmacaroons.
const macaroonKeyLabel = "macaroons-key-generator"

// maxSignatures is how many signatures along a macaroon a chain keeps. A macaroon within the limits
// on added caveats has fewer caveats: 4 minted, 16 added, and as many preimage= caveats (77 bytes
// each) as fit into maxTokenSize. The bound keeps the memory for a forged macaroon with many
// caveats small.
const maxSignatures = 128

// chain computes the signatures along a macaroon. The macaroon library returns only the last
// signature, but the earlier signatures are needed because they name the sub-budgets. A chain
// reuses one SHA-256 state, because verification runs on each request. A chain is not safe for
// concurrent use.
type chain struct {
	sha   hash.Hash
	block [64]byte
	sum   [32]byte
	at    [][32]byte // at[i]: signature after caveat i, for the first maxSignatures caveats
}

func newChain() *chain { return &chain{sha: sha256.New()} }

// mac sets sum to HMAC-SHA256 (RFC 2104) of the concatenated parts. The key is at most one SHA-256
// block (64 bytes) long.
func (c *chain) mac(key []byte, parts ...[]byte) {
	c.pad(key, 0x36)
	for _, p := range parts {
		c.sha.Write(p)
	}
	c.sha.Sum(c.block[:0]) // the inner hash; the next line copies it to sum
	copy(c.sum[:], c.block[:32])
	c.pad(key, 0x5c)
	c.sha.Write(c.sum[:])
	c.sha.Sum(c.sum[:0])
}

// pad starts a hash and writes the key to it, padded with zeros to one block, each byte XORed with
// x.
func (c *chain) pad(key []byte, x byte) {
	n := copy(c.block[:], key)
	clear(c.block[n:])
	for i := range c.block {
		c.block[i] ^= x
	}
	c.sha.Reset()
	c.sha.Write(c.block[:])
}

// sign computes the signatures of m under rootKey. The final signature is then in sum.
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

// signed reports in constant time whether the final signature equals signature.
func (c *chain) signed(signature []byte) bool { return hmac.Equal(c.sum[:], signature) }
