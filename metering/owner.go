package metering

import (
	"context"
	"crypto/rand"
	"encoding/hex"
)

// OwnerID names one running ledger. A ledger that was taken for dead continues under a new name.
type OwnerID [16]byte

func newOwnerID() (id OwnerID) { rand.Read(id[:]); return id }

// String returns the id in hex.
func (id OwnerID) String() string { return hex.EncodeToString(id[:]) }

// OwnerRow is one ledger that runs or has run. Its holds are safe from sweeps as long as its counter grows. No database
// clock is involved, because the clocks of databases step.
type OwnerRow struct {
	ID     OwnerID
	Beat   int64 // the counter, which grows with each heartbeat
	Fenced bool  // taken for dead, for ever: any process may sweep the owner's holds
}

// OwnerStore is the part of a Store that records who owns holds.
type OwnerStore interface {
	// Beat makes an owner's counter larger than the stored counter and at least beat. It makes the owner if it is
	// missing. It also records the running usage of the owner's holds, in the same transaction, which need not be
	// durable. now is the new counter. missing are the holds of progress that the store does not have under that owner.
	// fenced means that the owner was taken for dead, and that Beat wrote nothing.
	Beat(ctx context.Context, owner OwnerID, beat int64, progress []Progress) (now int64, missing []HoldID, fenced bool, err error)
	// Owners lists all owners.
	Owners(ctx context.Context) ([]OwnerRow, error)
	// Fence marks an owner as fenced, durably, if its counter is still beat. It reports whether the owner is fenced
	// now.
	Fence(ctx context.Context, owner OwnerID, beat int64) (bool, error)
	// Abandoned lists up to limit holds whose ids are above after, in order of ids, and whose owner is fenced or is not
	// in the store. A hold that a version without owners made is abandoned once its lease has run out by the store's
	// clock.
	Abandoned(ctx context.Context, after HoldID, limit int) ([]HoldRow, error)
	// Owned lists up to limit holds of one owner whose ids are above after, in order of ids.
	Owned(ctx context.Context, owner OwnerID, after HoldID, limit int) ([]HoldRow, error)
}

// Progress is the running usage of one hold.
type Progress struct {
	ID     HoldID
	Usage  []byte // see appendUsage
	Source Source
}
