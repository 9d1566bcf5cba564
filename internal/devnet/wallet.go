package devnet

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/btcutil/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg"
)

// chainParams is the chain of the network. Not simnet: deployed clients do not
// parse its invoices.
var chainParams = &chaincfg.RegressionNetParams

// minerWallet is the wallet that btcd mines to. btcd takes its mining address
// only when it starts, before any lnd has a wallet; so the root key is made
// here, and lnd's wallet is made from it later.
type minerWallet struct {
	rootKey  string // extended private key at depth 0
	address  string // its first p2wkh address
	birthday time.Time
}

// newMinerWallet draws a root key and finds the first address of its wallet.
func newMinerWallet(now time.Time) (minerWallet, error) {
	seed, err := hdkeychain.GenerateSeed(hdkeychain.RecommendedSeedLen)
	if err != nil {
		return minerWallet{}, fmt.Errorf("make the mining wallet: %w", err)
	}
	return minerWalletOf(seed, now)
}

// minerWalletOf derives m/84'/0'/0'/0/0 from the seed: lnd's first address, with
// coin type 0 on every chain. btcwallet, which lnd is built on, drops the zero
// bytes that a private key begins with before it derives a hardened child from
// it (`hdkeychain.DeriveNonStandard`). By BIP 32 (`Derive`) one wallet in a
// hundred would get another address than lnd gives it.
func minerWalletOf(seed []byte, now time.Time) (minerWallet, error) {
	w := minerWallet{birthday: now.Add(-3 * time.Hour)}
	key, err := hdkeychain.NewMaster(seed, chainParams)
	if err != nil {
		return w, fmt.Errorf("make the mining wallet: %w", err)
	}
	w.rootKey = key.String()
	const hardened = hdkeychain.HardenedKeyStart
	for _, step := range []uint32{hardened + 84, hardened, hardened, 0, 0} {
		//lint:ignore SA1019 what lnd's wallet does counts, not the standard
		if key, err = key.DeriveNonStandard(step); err != nil {
			return w, fmt.Errorf("derive the mining address: %w", err)
		}
	}
	public, err := key.ECPubKey()
	if err != nil {
		return w, fmt.Errorf("derive the mining address: %w", err)
	}
	address, err := btcutil.NewAddressWitnessPubKeyHash(btcutil.Hash160(public.SerializeCompressed()), chainParams)
	if err != nil {
		return w, fmt.Errorf("derive the mining address: %w", err)
	}
	w.address = address.EncodeAddress()
	return w, nil
}
