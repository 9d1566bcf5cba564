package l402

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"
)

// memoSize is the length in bytes of a sealed memo before base64: nonce, token
// id and tag.
const memoSize = chacha20poly1305.NonceSizeX + len(TokenID{}) + chacha20poly1305.Overhead

// memoEncoding is strict: a sealed memo has one spelling.
var memoEncoding = base64.RawURLEncoding.Strict()

// SealMemo hides a token id in the text for an invoice's memo, so that the
// settled invoice names its account to us, and no wallet sees a stable account
// name. It is bound to the invoice's payment hash and amount: copied into
// another invoice it does not open. 96 characters of URL-safe base64.
func (k *Keyring) SealMemo(t TokenID, h PaymentHash, amount Msat) string {
	b := make([]byte, chacha20poly1305.NonceSizeX, memoSize)
	rand.Read(b)
	return memoEncoding.EncodeToString(k.keys[0].memo.Seal(b, b, t[:], memoData(h, amount)))
}

// OpenMemo reads what SealMemo wrote, under any key that still verifies. It
// fails with ErrMemo for everything else.
func (k *Keyring) OpenMemo(sealed string, h PaymentHash, amount Msat) (TokenID, error) {
	var t TokenID
	if len(sealed) != memoEncoding.EncodedLen(memoSize) {
		return t, ErrMemo
	}
	b, err := memoEncoding.DecodeString(sealed)
	if err != nil || len(b) != memoSize { // line breaks decode to fewer bytes
		return t, ErrMemo
	}
	nonce, box, data := b[:chacha20poly1305.NonceSizeX], b[chacha20poly1305.NonceSizeX:], memoData(h, amount)
	for i := range k.keys {
		if id, err := k.keys[i].memo.Open(nil, nonce, box, data); err == nil {
			copy(t[:], id)
			return t, nil
		}
	}
	return t, ErrMemo
}

// memoData is what a memo is bound to: payment hash ‖ amount in msat, big
// endian.
func memoData(h PaymentHash, amount Msat) []byte {
	return binary.BigEndian.AppendUint64(h[:], uint64(amount))
}
