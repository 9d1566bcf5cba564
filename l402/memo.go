package l402

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"
)

// memoSize is the length in bytes of a sealed memo before base64: the nonce, the token id and the
// authentication tag.
const memoSize = chacha20poly1305.NonceSizeX + len(TokenID{}) + chacha20poly1305.Overhead

// memoEncoding is strict, so that each sealed memo has exactly one spelling.
var memoEncoding = base64.RawURLEncoding.Strict()

// SealMemo returns an encrypted token id for the memo of an invoice, as 96 characters of URL-safe
// base64. With it the service finds the account of a settled invoice, and the wallets that see the
// memo do not see an account name that stays the same. The memo is bound to the payment hash and
// the amount of the invoice, so that a copy in another invoice cannot be opened.
func (k *Keyring) SealMemo(t TokenID, h PaymentHash, amount Msat) string {
	b := make([]byte, chacha20poly1305.NonceSizeX, memoSize)
	rand.Read(b)
	return memoEncoding.EncodeToString(k.keys[0].memo.Seal(b, b, t[:], memoData(h, amount)))
}

// OpenMemo returns the token id that SealMemo encrypted with any key that may still verify. It
// fails with ErrMemo for every other text.
func (k *Keyring) OpenMemo(sealed string, h PaymentHash, amount Msat) (TokenID, error) {
	var t TokenID
	if len(sealed) != memoEncoding.EncodedLen(memoSize) {
		return t, ErrMemo
	}
	b, err := memoEncoding.DecodeString(sealed)
	if err != nil || len(b) != memoSize { // the decoder skips line breaks, so b may be shorter
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

// memoData returns the data that a memo is bound to: the payment hash, then the amount in msat as 8
// bytes, big endian.
func memoData(h PaymentHash, amount Msat) []byte {
	return binary.BigEndian.AppendUint64(h[:], uint64(amount))
}
