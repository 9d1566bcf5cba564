package devnet

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/hdkeychain"
	"github.com/btcsuite/btcwallet/waddrmgr"
	"github.com/btcsuite/btcwallet/walletdb"
	_ "github.com/btcsuite/btcwallet/walletdb/bdb"
)

// The mined address is the first address of lnd's wallet. This holds also where lnd's derivation
// differs from BIP 32, which is when a private key from which a hardened child is derived begins
// with a zero byte.
func TestMinedAddressIsTheWallets(t *testing.T) {
	differ := 0
	for n := uint64(0); differ < 3; n++ {
		seed := make([]byte, hdkeychain.RecommendedSeedLen)
		binary.BigEndian.PutUint64(seed, n)
		if n > 0 && !beginsWithZero(t, seed) {
			continue
		}
		if n > 0 {
			differ++
		}
		miner, err := minerWalletOf(seed, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := firstAddress(t, miner.rootKey); got != miner.address {
			t.Errorf("seed %d: mined to %s, the wallet's first address is %s", n, miner.address, got)
		}
	}
}

// beginsWithZero reports whether the private key at m/84' or at m/84'/0' begins with a zero byte.
// This is so for 1 seed in 128.
func beginsWithZero(t *testing.T, seed []byte) bool {
	t.Helper()
	key, err := hdkeychain.NewMaster(seed, chainParams)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []uint32{84, 0} {
		if key, err = key.Derive(hdkeychain.HardenedKeyStart + step); err != nil {
			t.Fatal(err)
		}
		private, err := key.ECPrivKey()
		if err != nil {
			t.Fatal(err)
		}
		if private.Serialize()[0] == 0 {
			return true
		}
	}
	return false
}

// firstAddress makes a wallet with the library that lnd uses, and returns the wallet's first
// address at m/84'/0'/0'/0.
func firstAddress(t *testing.T, rootKey string) string {
	t.Helper()
	key, err := hdkeychain.NewKeyFromString(rootKey)
	if err != nil {
		t.Fatal(err)
	}
	db, err := walletdb.Create("bdb", filepath.Join(t.TempDir(), "wallet.db"), true, time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var address string
	err = walletdb.Update(db, func(tx walletdb.ReadWriteTx) error {
		bucket, err := tx.CreateTopLevelBucket([]byte("waddrmgr"))
		if err != nil {
			return err
		}
		public, private := []byte("public"), []byte("private")
		if err := waddrmgr.Create(bucket, key, public, private, chainParams, &waddrmgr.FastScryptOptions, time.Now()); err != nil {
			return err
		}
		manager, err := waddrmgr.Open(bucket, public, chainParams)
		if err != nil {
			return err
		}
		defer manager.Close()
		scope, err := manager.FetchScopedKeyManager(waddrmgr.KeyScopeBIP0084)
		if err != nil {
			return err
		}
		addresses, err := scope.NextExternalAddresses(bucket, waddrmgr.DefaultAccountNum, 1)
		if err != nil {
			return err
		}
		address = addresses[0].Address().EncodeAddress()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}
