package client

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// tokenFile is a Token on disk, secrets included. The account, the payment hash, the service and
// the expiry are not stored as fields. They are read from the macaroon, so that the file cannot
// contradict the macaroon.
type tokenFile struct {
	Origin    string        `json:"origin"`
	Macaroon  string        `json:"macaroon"` // standard base64
	Preimage  string        `json:"preimage"` // hex
	CreatedAt time.Time     `json:"created_at"`
	UpdatedAt time.Time     `json:"updated_at"`
	Spent     l402.Msat     `json:"spent_msat"`
	Deposits  []depositFile `json:"deposits"`
	Served    bool          `json:"served,omitempty"`
}

type depositFile struct {
	PaymentHash string    `json:"payment_hash"`
	Amount      l402.Msat `json:"amount_msat"`
	Fee         l402.Msat `json:"fee_msat"`
	At          time.Time `json:"at"`
}

func newTokenFile(t Token) tokenFile {
	f := tokenFile{
		Origin:    t.Origin,
		Macaroon:  base64.StdEncoding.EncodeToString(t.Macaroon),
		Preimage:  t.Preimage.Hex(),
		CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, Spent: t.Spent, Served: t.Served,
	}
	for _, d := range t.Deposits {
		f.Deposits = append(f.Deposits, depositFile{d.PaymentHash.String(), d.Amount, d.Fee, d.At})
	}
	return f
}

func (f tokenFile) token() (Token, error) {
	mac, err := base64.StdEncoding.DecodeString(f.Macaroon)
	if err != nil {
		return Token{}, errors.New("macaroon is not base64")
	}
	t, err := describe(f.Origin, mac)
	if err != nil {
		return Token{}, err
	}
	if err := parseHex(t.Preimage[:], f.Preimage); err != nil {
		return Token{}, fmt.Errorf("preimage: %w", err)
	}
	if t.Preimage.Hash() != t.PaymentHash {
		return Token{}, errors.New("preimage does not belong to the macaroon")
	}
	if !f.Spent.Valid() {
		return Token{}, fmt.Errorf("spent_msat: %w", l402.ErrMsatRange)
	}
	t.CreatedAt, t.UpdatedAt, t.Spent, t.Served = f.CreatedAt, f.UpdatedAt, f.Spent, f.Served
	for _, fd := range f.Deposits {
		d := Deposit{Amount: fd.Amount, Fee: fd.Fee, At: fd.At}
		if err := parseHex(d.PaymentHash[:], fd.PaymentHash); err != nil {
			return Token{}, fmt.Errorf("payment hash: %w", err)
		}
		t.Deposits = append(t.Deposits, d)
	}
	return t, nil
}

// intentFile is an Intent on disk.
type intentFile struct {
	Origin    string    `json:"origin"`
	Macaroon  string    `json:"macaroon"` // standard base64
	Invoice   string    `json:"invoice"`
	Hash      string    `json:"payment_hash"`
	Amount    l402.Msat `json:"amount_msat"`
	FeeLimit  l402.Msat `json:"fee_limit_msat"`
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func newIntentFile(in Intent) intentFile {
	return intentFile{
		Origin: in.Origin, Macaroon: base64.StdEncoding.EncodeToString(in.Macaroon), Invoice: in.Invoice,
		Hash: in.Hash.String(), Amount: in.Amount, FeeLimit: in.FeeLimit, At: in.At, ExpiresAt: in.ExpiresAt,
	}
}

func (f intentFile) intent() (Intent, error) {
	in := Intent{Origin: f.Origin, Invoice: f.Invoice, Amount: f.Amount, FeeLimit: f.FeeLimit, At: f.At, ExpiresAt: f.ExpiresAt}
	if !f.Amount.Valid() || !f.FeeLimit.Valid() {
		return Intent{}, fmt.Errorf("amount: %w", l402.ErrMsatRange)
	}
	var err error
	if in.Macaroon, err = base64.StdEncoding.DecodeString(f.Macaroon); err != nil {
		return Intent{}, errors.New("macaroon is not base64")
	}
	if err := parseHex(in.Hash[:], f.Hash); err != nil {
		return Intent{}, fmt.Errorf("payment hash: %w", err)
	}
	return in, nil
}

// parseHex fills dst from hex digits. s must have exactly as many digits as dst needs. The error
// does not repeat s, which may be a secret.
func parseHex(dst []byte, s string) error {
	if len(s) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("want %d hex digits", hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("want %d hex digits", hex.EncodedLen(len(dst)))
	}
	return nil
}
