package devnet

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/btcutil/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg"
)

// chainParams are the parameters of the network's chain. The chain is not simnet, because deployed
// clients cannot parse simnet invoices.
var chainParams = &chaincfg.RegressionNetParams

// minerWallet is the wallet that btcd mines to. btcd reads its mining address only at its start,
// when no lnd has a wallet yet. The root key is therefore made here, and lnd's wallet is created
// from it later.
type minerWallet struct {
	rootKey  string // extended private key at depth 0
	address  string // first p2wkh address of the wallet
	birthday time.Time
}

// newMinerWallet makes a random root key and derives the first address of its wallet.
func newMinerWallet(now time.Time) (minerWallet, error) {
	seed, err := hdkeychain.GenerateSeed(hdkeychain.RecommendedSeedLen)
	if err != nil {
		return minerWallet{}, fmt.Errorf("make the mining wallet: %w", err)
	}
	return minerWalletOf(seed, now)
}

// minerWalletOf derives m/84'/0'/0'/0/0 from the seed. This is the first address of lnd, which uses
// coin type 0 on every chain. lnd uses btcwallet. When a private key begins with zero bytes,
// btcwallet drops them before it derives a hardened child (`hdkeychain.DeriveNonStandard`). The
// derivation of BIP 32 (`Derive`) would give a different address than lnd for one wallet in a
// hundred.
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
