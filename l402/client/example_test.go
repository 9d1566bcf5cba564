package client_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"sluice/l402/client"
)

// A paid API, used like a free one. The gateway and the wallet stand in for
// real ones; an adapter for lnd is in cmd/agent-client.
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
		Network:       client.Regtest,
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
