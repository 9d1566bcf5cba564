package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
)

// places returns all the ways to present a credential.
func (k token) places(t testing.TB) map[string]header {
	t.Helper()
	plain := strings.TrimPrefix(k.String(), "L402 ")
	hex := hexOf(k.attenuate(t, "preimage="+k.preimage.Hex()).macaroon)
	return map[string]header{
		"L402":                   {"Authorization": "L402 " + plain},
		"LSAT":                   {"Authorization": "LSAT " + plain},
		"Bearer":                 {"Authorization": "Bearer " + plain},
		"Bearer with the scheme": {"Authorization": "Bearer L402 " + plain},
		"X-Api-Key":              {"X-Api-Key": plain},
		"Token":                  {"Token": plain},
		"Token in hex":           {"Token": hex},
		"Grpc-Metadata-Token":    {"Grpc-Metadata-Token": hex},
		"Macaroon":               {"Macaroon": hex},
		"Grpc-Metadata-Macaroon": {"Grpc-Metadata-Macaroon": hex},
	}
}

// TestEveryPlaceOfACredentialPaysAndStaysHere: for a credential in each place the request is charged,
// and neither the backend nor the log gets the credential.
func TestEveryPlaceOfACredentialPaysAndStaysHere(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	covered := map[string]bool{}
	for name, h := range k.places(t) {
		before := r.balance(k).msat(t, "charged_msat")
		for header := range h {
			covered[header] = true
		}
		a := r.do("POST", chatPath, request("max_tokens", "4"), h)
		if a.status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", name, a.status, a.body)
			continue
		}
		r.wantSpent(k, before+r.trueCost())
		for header, values := range r.truth().Header {
			for _, v := range values {
				if strings.Contains(v, k.preimage.Hex()) || strings.Contains(v, b64(k.macaroon)) || strings.Contains(v, hexOf(k.macaroon)[:64]) {
					t.Errorf("%s: the backend saw it in %s", name, header)
				}
			}
		}
	}
	for _, name := range l402.CredentialHeaders() {
		if !covered[name] {
			t.Errorf("no test presents a credential in %s", name)
		}
	}
	if log := r.log.String(); strings.Contains(log, k.preimage.Hex()) || strings.Contains(log, b64(k.macaroon)) || strings.Contains(log, hexOf(k.macaroon)[:64]) {
		t.Error("the log has a credential")
	}
}

// TestTwoCredentialsInAnyTwoPlacesAreRefused: the same credential in two places counts as one
// credential. Two different credentials are refused in any places, because it is not clear who pays.
func TestTwoCredentialsInAnyTwoPlacesAreRefused(t *testing.T) {
	r := newRig(t)
	a, b := r.buy(minPurchase), r.buy(minPurchase)
	for first, h := range a.places(t) {
		for second, other := range b.places(t) {
			both, same := header{}, header{}
			for name, value := range h {
				both[name], same[name] = value, value
			}
			for name, value := range other {
				both[name] = value
			}
			for name, value := range a.places(t)[second] {
				same[name] = value
			}
			if len(both) == 2 {
				r.do("POST", chatPath, request(), both).wantProblem(t, http.StatusBadRequest, "invalid-request")
			}
			if got := r.do("GET", "/l402/balance", "", same); got.status != http.StatusOK {
				t.Errorf("%s and %s: status %d\n%s", first, second, got.status, got.body)
			}
		}
	}
	r.wantSpent(a, 0)
	r.wantSpent(b, 0)
}

// TestForeignKeysAreIgnored: a key of another kind, which some SDKs insist on, is neither a
// credential nor a conflict.
func TestForeignKeysAreIgnored(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	carried := k.attenuate(t, "preimage="+k.preimage.Hex())
	for _, h := range []header{
		{"Authorization": "Bearer sk-1234", "X-Api-Key": "sk-ant-api03-1234", "Token": "t", "Macaroon": hexOf(carried.macaroon)},
		{"Authorization": "Bearer unused", "X-Api-Key": strings.TrimPrefix(k.String(), "L402 ")},
	} {
		if a := r.do("POST", chatPath, request("max_tokens", "4"), h); a.status != http.StatusOK {
			t.Errorf("status %d\n%s", a.status, a.body)
		}
	}
}

// TestSeveralMacaroonsInOneCredential: of several macaroons in one credential, the gateway's own
// counts. Somebody else's macaroon proves nothing, because many callers may send it: such callers
// never get each other's challenge.
func TestSeveralMacaroonsInOneCredential(t *testing.T) {
	r := newRig(t)
	keys, err := l402.NewKeyring(l402.LedgerID{7}, []l402.MasterKey{{ID: "x", State: l402.KeyMint, Secret: [32]byte{9}}})
	if err != nil {
		t.Fatal(err)
	}
	k := r.buy(minPurchase)
	foreign, err := keys.Mint(l402.MintParams{Service: testService, PaymentHash: k.id.PaymentHash, TokenID: l402.NewTokenID(), Deposit: 1000, ValidUntil: tomorrow()})
	if err != nil {
		t.Fatal(err)
	}
	several := func(macaroons ...[]byte) header {
		var all []string
		for _, m := range macaroons {
			all = append(all, b64(m))
		}
		return header{"Authorization": "L402 " + strings.Join(all, ",") + ":" + k.preimage.Hex()}
	}
	for _, h := range []header{several(foreign, k.macaroon), several(k.macaroon, foreign)} {
		before := r.balance(k).msat(t, "charged_msat")
		if a := r.do("POST", chatPath, request("max_tokens", "4"), h); a.status != http.StatusOK {
			t.Fatalf("status %d\n%s", a.status, a.body)
		}
		r.wantSpent(k, before+r.trueCost())
	}
	narrowed := k.attenuate(t, "inference_budget_msat=1")
	r.do("POST", chatPath, request(), several(k.macaroon, narrowed.macaroon)).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.do("POST", chatPath, request(), several(foreign)).wantProblem(t, http.StatusPaymentRequired, "payment-required")

	// Two accounts have one payment hash only if the preimage is shared. Both callers send the
	// same foreign macaroon first.
	other := r.mint(testService, l402.NewTokenID(), 1, tomorrow())
	mine := r.do("POST", chatPath, request(), several(foreign, narrowed.macaroon))
	theirs := r.do("POST", chatPath, request(), header{"Authorization": "L402 " + b64(foreign) + "," + b64(other.macaroon) + ":" + other.preimage.Hex()})
	if r.pay(mine).id == r.pay(theirs).id {
		t.Error("two accounts share a challenge")
	}
}
