// Package bolt11test signs invoices for tests. Its invoices decode like the invoices of a real
// node, but no node can receive a payment of them.
package bolt11test

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/lightningnetwork/lnd/lnwire"
	"github.com/lightningnetwork/lnd/zpay32"

	"sluice.example/sluice/l402/bolt11"
)

var params = map[bolt11.Network]*chaincfg.Params{
	bolt11.Mainnet: &chaincfg.MainNetParams,
	bolt11.Testnet: &chaincfg.TestNet3Params,
	bolt11.Signet:  &chaincfg.SigNetParams,
	bolt11.Regtest: &chaincfg.RegressionNetParams,
	bolt11.Simnet:  &chaincfg.SimNetParams,
}

// Sign encodes an invoice and signs it with the payee's key. Sign ignores inv.Payee. An
// inv.FinalCLTV of 0 stands for the default of BOLT 11. Sign panics when inv cannot be encoded.
func Sign(payee *btcec.PrivateKey, inv bolt11.Invoice) string {
	options := []func(*zpay32.Invoice){
		zpay32.Description(inv.Description), zpay32.Expiry(inv.ExpiresAt.Sub(inv.At)), zpay32.PaymentAddr(inv.Secret),
		zpay32.Features(lnwire.NewFeatureVector(
			lnwire.NewRawFeatureVector(lnwire.TLVOnionPayloadRequired, lnwire.PaymentAddrRequired), lnwire.Features)),
	}
	if inv.Amount != 0 {
		options = append(options, zpay32.Amount(lnwire.MilliSatoshi(inv.Amount)))
	}
	if inv.FinalCLTV != 0 {
		options = append(options, zpay32.CLTVExpiry(uint64(inv.FinalCLTV)))
	}
	raw, err := zpay32.NewInvoice(params[inv.Network], inv.Hash, inv.At, options...)
	if err != nil {
		panic(err)
	}
	s, err := raw.Encode(zpay32.MessageSigner{SignCompact: func(msg []byte) ([]byte, error) {
		return ecdsa.SignCompact(payee, chainhash.HashB(msg), true), nil
	}})
	if err != nil {
		panic(err)
	}
	return s
}
