package metering

import (
	"context"
	"crypto/rand"
	"encoding/hex"
)

// OwnerID names one running ledger. A process that was taken for dead goes on
// under a new name.
type OwnerID [16]byte

func newOwnerID() (id OwnerID) { rand.Read(id[:]); return id }

// String renders the id in hex.
func (id OwnerID) String() string { return hex.EncodeToString(id[:]) }

// OwnerRow is one running ledger, or one that was. Its holds live as long as its
// counter moves. No clock is involved, because the clocks of databases step.
type OwnerRow struct {
	ID     OwnerID
	Beat   int64 // grows with each heartbeat
	Fenced bool  // taken for dead, for good: its holds may be swept
}

// OwnerStore is the part of a Store about who owns holds.
type OwnerStore interface {
	// Beat raises an owner's counter above what stands and to at least beat, makes
	// the owner if it is missing, and records the running usage of its holds, in one
	// transaction that need not be durable. It returns the counter, and those of the
	// holds that are not in the store under that owner. fenced says that the owner
	// was taken for dead, and that nothing was written.
	Beat(ctx context.Context, owner OwnerID, beat int64, progress []Progress) (now int64, missing []HoldID, fenced bool, err error)
	// Owners lists all owners.
	Owners(ctx context.Context) ([]OwnerRow, error)
	// Fence ends an owner, durably, if its counter still is beat. It reports whether
	// the owner is fenced now.
	Fence(ctx context.Context, owner OwnerID, beat int64) (bool, error)
	// Abandoned lists up to limit holds, by id from after on, whose owner is fenced or
	// on no record. A hold of a version without owners is abandoned once its lease
	// has run out by the store's clock.
	Abandoned(ctx context.Context, after HoldID, limit int) ([]HoldRow, error)
	// Owned lists up to limit holds of one owner, by id from after on.
	Owned(ctx context.Context, owner OwnerID, after HoldID, limit int) ([]HoldRow, error)
}

// Progress is the running usage of one hold.
type Progress struct {
	ID     HoldID
	Usage  []byte // see appendUsage
	Source Source
}
