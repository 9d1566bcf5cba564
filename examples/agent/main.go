// Command agent asks a model one question and pays for the answer from an lnd wallet, with package
// client.
//
//	agent -url http://gateway:8080 -model demo -network regtest \
//		-lnd 127.0.0.1:10009 -tls-cert tls.cert -macaroon admin.macaroon "Say hello."
//
// The credit that is left remains in the folder of -tokens, for the next question.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/client"
	"sluice.example/sluice/l402/client/lndwallet"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// options holds the values of the command line.
type options struct {
	url, model, network, tokens, question string
	lnd, cert, macaroon                   string
}

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	fs.StringVar(&o.url, "url", "", "address of the gateway")
	fs.StringVar(&o.model, "model", "", "model to ask")
	fs.StringVar(&o.network, "network", "mainnet", "Bitcoin network of lnd: mainnet, testnet, signet, regtest or simnet")
	fs.StringVar(&o.tokens, "tokens", "tokens", "folder for tokens")
	fs.StringVar(&o.lnd, "lnd", "127.0.0.1:10009", "lnd's gRPC listener")
	fs.StringVar(&o.cert, "tls-cert", "", "lnd's tls.cert")
	fs.StringVar(&o.macaroon, "macaroon", "", "macaroon that may pay")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.question = strings.Join(fs.Args(), " ")
	if o.url == "" || o.model == "" || o.macaroon == "" || o.question == "" {
		return o, errors.New("give -url, -model, -macaroon and a question")
	}
	return o, nil
}

func run(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	wallet, err := openWallet(o)
	if err != nil {
		return err
	}
	defer wallet.Close()
	store, err := client.OpenDir(o.tokens)
	if err != nil {
		return err
	}
	network, err := bolt11.ParseNetwork(o.network)
	if err != nil {
		return err
	}
	buyer, err := client.New(client.Config{
		Wallet: wallet, Store: store, Network: network,
		MaxPerRequest: 10_000_000, // msat
		MaxFee:        client.Fee{Base: 1000, PPM: 5000},
	})
	if err != nil {
		return err
	}
	return ask(&http.Client{Transport: buyer, Timeout: time.Minute}, o, out)
}

func openWallet(o options) (*lndwallet.Wallet, error) {
	macaroon, err := os.ReadFile(o.macaroon)
	if err != nil {
		return nil, err
	}
	var cert []byte
	if o.cert != "" {
		if cert, err = os.ReadFile(o.cert); err != nil {
			return nil, err
		}
	}
	return lndwallet.Dial(lndwallet.Config{Address: o.lnd, TLSCert: cert, Macaroon: macaroon})
}

// ask sends the question and prints the answer and its cost.
func ask(api *http.Client, o options, out io.Writer) error {
	body, err := json.Marshal(map[string]any{
		"model": o.model, "messages": []map[string]string{{"role": "user", "content": o.question}},
	})
	if err != nil {
		return err
	}
	resp, err := api.Post(o.url+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	var answer struct {
		Choices []struct {
			Message struct{ Content string }
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Choices) == 0 {
		return fmt.Errorf("no answer in %q (%v)", text, err)
	}
	fmt.Fprintln(out, answer.Choices[0].Message.Content)
	if charge := client.Cost(resp); charge.Cost != nil && charge.Balance != nil {
		fmt.Fprintf(out, "cost %s, %s left\n", charge.Cost, charge.Balance)
	}
	return nil
}
