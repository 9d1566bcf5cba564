package bolt11

import (
	"fmt"

	"github.com/btcsuite/btcd/chaincfg"
)

// Network is a Bitcoin network. A wallet belongs to exactly one network.
type Network string

// These are the networks whose invoices Decode reads.
const (
	Mainnet Network = "mainnet"
	Testnet Network = "testnet"
	Signet  Network = "signet"
	Regtest Network = "regtest"
	Simnet  Network = "simnet"
)

// ParseNetwork reads the name of a network.
func ParseNetwork(s string) (Network, error) {
	if Network(s).params() == nil {
		return "", fmt.Errorf("unknown network %q: want mainnet, testnet, signet, regtest or simnet", s)
	}
	return Network(s), nil
}

func (n Network) params() *chaincfg.Params {
	switch n {
	case Mainnet:
		return &chaincfg.MainNetParams
	case Testnet:
		return &chaincfg.TestNet3Params
	case Signet:
		return &chaincfg.SigNetParams
	case Regtest:
		return &chaincfg.RegressionNetParams
	case Simnet:
		return &chaincfg.SimNetParams
	}
	return nil
}

// networkOf returns the network of a currency prefix of BOLT 11. The prefix is the letters between
// "ln" and the amount. An unknown prefix returns "".
func networkOf(prefix string) Network {
	switch prefix {
	case "bc":
		return Mainnet
	case "tb":
		return Testnet
	case "tbs":
		return Signet
	case "bcrt":
		return Regtest
	case "sb":
		return Simnet
	}
	return ""
}
