package l402

import "testing"

type memoVector struct {
	Name        string `json:"name"`
	Sealed      string `json:"sealed"`
	PaymentHash string `json:"payment_hash"`
	Amount      Msat   `json:"amount_msat"`
	TokenID     string `json:"token_id"` // "": the memo must not open
}

func TestOpenMemo(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	for _, v := range readVectors[[]memoVector](t, "memos.json") {
		hash, err := ParsePaymentHash(v.PaymentHash)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ring.OpenMemo(v.Sealed, hash, v.Amount)
		if v.TokenID == "" {
			if err != ErrMemo || got != (TokenID{}) {
				t.Errorf("%s: got %v, %v", v.Name, got, err)
			}
		} else if err != nil || got.String() != v.TokenID {
			t.Errorf("%s: got %v, %v", v.Name, got, err)
		}
	}
}

func TestSealMemo(t *testing.T) {
	vectors := readVectors[tokenVectors](t, "tokens.json")
	ring := vectors.ring(t)
	id, hash := NewTokenID(), NewPreimage().Hash()
	sealed := ring.SealMemo(id, hash, 1000)
	if len(sealed) != 96 || sealed == ring.SealMemo(id, hash, 1000) {
		t.Errorf("sealed memo %q", sealed)
	}
	if got, err := ring.OpenMemo(sealed, hash, 1000); err != nil || got != id {
		t.Errorf("got %v, %v", got, err)
	}
	other, err := NewKeyring(LedgerID{}, vectors.keys())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenMemo(sealed, hash, 1000); err != ErrMemo {
		t.Errorf("opened for another ledger: %v", err)
	}
}
