package client_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/client"
)

// A program uses a paid API like a free API. The gateway and the wallet of this example are fakes.
// Package lndwallet has a wallet for lnd.
func Example() {
	gateway := newGateway(new(testing.B)) // 1000 msat per call, 10000 msat per purchase
	server := httptest.NewServer(gateway)
	defer server.Close()
	dir, err := os.MkdirTemp("", "tokens")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := client.OpenDir(dir)
	if err != nil {
		log.Fatal(err)
	}
	buyer, err := client.New(client.Config{
		Wallet:        &fakeWallet{g: gateway},
		Store:         store,
		Network:       bolt11.Regtest,
		MaxPerRequest: 20_000,
		MaxTotal:      100_000,
		MaxFee:        client.Fee{Base: 1000, PPM: 5000},
	})
	if err != nil {
		log.Fatal(err)
	}
	api := &http.Client{Transport: buyer}
	for range 2 {
		resp, err := api.Get(server.URL + "/inference/call")
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		charge := client.Cost(resp)
		fmt.Printf("%s: cost %s, %s left\n", body, charge.Cost, charge.Balance)
	}
	// Output:
	// answer: cost 1000 msat, 9000 msat left
	// answer: cost 1000 msat, 8000 msat left
}

// A buyer makes a part of its token for another agent: 5000 msat, one model, one hour.
func ExampleToken_Delegate() {
	whole := boughtToken()
	part, err := whole.Delegate(client.Delegation{
		Budget: 5000, Models: []string{"small"}, ValidUntil: time.Now().Add(time.Hour), Label: "crawler",
	}, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	secret, err := part.Export() // for the other agent's ParseCredential and Client.Import
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(secret) > 0, part.ID == whole.ID, part.Attenuated)
	conditions, err := part.Conditions()
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range conditions[3:] {
		name, _, _ := strings.Cut(c, "=")
		fmt.Println(name)
	}
	_, err = part.Delegate(client.Delegation{Budget: 6000}, time.Now())
	fmt.Println(err)
	// Output:
	// true true true
	// inference_valid_until
	// delegation
	// inference_budget_msat
	// inference_label
	// inference_models
	// budget: a budget can only become smaller (the token's is 5000 msat)
}

// boughtToken returns a token like those of Store.Tokens.
func boughtToken() client.Token {
	p := l402.NewPreimage()
	return client.Token{
		Origin: "https://gateway.example:443", Service: "inference", PaymentHash: p.Hash(), Preimage: p,
		Macaroon: newGateway(new(testing.B)).mint(challenge{
			id:      l402.Identifier{PaymentHash: p.Hash()},
			caveats: []string{"services=inference:0", "inference_valid_until=4000000000", "inference_deposit_msat=100000"},
		}),
	}
}
