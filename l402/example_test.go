package l402_test

import (
	"fmt"
	"net/http"
	"time"

	"sluice.example/sluice/l402"
)

// A service makes a challenge, a client pays the challenge and comes back with a credential, and
// the service verifies the credential.
func Example() {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	ring, err := l402.NewKeyring(l402.LedgerID{1}, []l402.MasterKey{
		{ID: "2026-09", State: l402.KeyMint, Secret: [32]byte{1, 2, 3}}, // 32 random bytes
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// The service answers 402. The invoice is made with the same preimage.
	preimage := l402.NewPreimage()
	macaroon, err := ring.Mint(l402.MintParams{
		Service:     "inference",
		PaymentHash: preimage.Hash(),
		TokenID:     l402.NewTokenID(),
		Deposit:     250_000,
		ValidUntil:  now.AddDate(1, 0, 0),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := http.Header{"Www-Authenticate": {l402.FormatChallenge(macaroon, "lnbcrt2500n1example")}}

	// The client reads the challenge, pays the invoice, and learns the preimage.
	challenge, err := l402.ParseChallenge(answer.Values("WWW-Authenticate"))
	if err != nil {
		fmt.Println(err)
		return
	}
	id, _, err := l402.Inspect(challenge.Macaroon)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("macaroon is for the invoice:", id.PaymentHash == preimage.Hash())
	request := http.Header{"Authorization": {l402.FormatCredential(challenge.Macaroon, preimage)}}

	// The service verifies the signature, the preimage and the caveats.
	unverified, err := l402.CredentialFromHeader(request)
	if err != nil || unverified == nil {
		fmt.Println("no credential", err)
		return
	}
	token, err := ring.Verify(unverified)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("authorized:", token.Authorize("inference", now) == nil)
	fmt.Println("deposit:", token.Deposit)
	// Output:
	// macaroon is for the invoice: true
	// authorized: true
	// deposit: 250000 msat
}

// A holder makes a narrower token for somebody else, without asking the service.
func ExampleAttenuate() {
	ring, err := l402.NewKeyring(l402.LedgerID{1}, []l402.MasterKey{{ID: "k", State: l402.KeyMint, Secret: [32]byte{1}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	preimage := l402.NewPreimage()
	macaroon, err := ring.Mint(l402.MintParams{Service: "inference", PaymentHash: preimage.Hash(),
		TokenID: l402.NewTokenID(), Deposit: 250_000, ValidUntil: time.Unix(2_000_000_000, 0)})
	if err != nil {
		fmt.Println(err)
		return
	}

	worker, err := l402.Attenuate(macaroon,
		"inference_label=worker 7", "inference_budget_msat=5000", "inference_models=tiny,small")
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := ring.Verify(&l402.Credential{Macaroon: worker, Preimage: preimage})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.Authorize("inference", time.Unix(1_900_000_000, 0)))
	fmt.Println(token.Budgets[0].Label, "may spend", token.Budgets[0].Limit)
	fmt.Println(token.AllowModel("large"))
	// Output:
	// <nil>
	// worker 7 may spend 5000 msat
	// caveat "inference_models=tiny,small": this token is not for that model: use one of the named models or another token
}
