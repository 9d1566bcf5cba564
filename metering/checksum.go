package metering

import (
	"encoding/binary"
	"hash/crc32"
)

// The ledger stores most amounts in two places, and an audit compares the two: a charge with its line, a balance with
// the sum of its lines. It stores two amounts in one place only: what a charge had held, and the limit of a delegated
// budget. A checksum over the columns that never change shows whether one of those two was changed. The checksum finds
// damage and edits by hand. It is no signature, because a program that can write the table can write a checksum as
// well.

// castagnoli is the table of CRC-32C (RFC 3720, appendix B.4), for which processors have instructions.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum returns the checksum of the bytes. It is never 0, because 0 means that a row has no checksum.
func sum(b []byte) int32 {
	if s := int32(crc32.Checksum(b, castagnoli)); s != 0 {
		return s
	}
	return 1
}

// checksum covers the columns that never change after the charge is first written, even when its owner replaces the
// charge.
func (c *ChargeRow) checksum() int32 {
	var room [256]byte
	b := append(room[:0], c.Hold[:]...)
	b = append(b, c.Account[:]...)
	b = append(b, c.Prev[:]...)
	b = append(b, c.ChainPrev[:]...)
	b = append(b, c.Chain[:]...)
	b = append(b, c.Lock[:]...)
	b = appendBytes(b, c.Service)
	b = appendBytes(b, c.Model)
	b = binary.AppendUvarint(b, uint64(c.Amount))
	b = binary.AppendUvarint(b, uint64(c.Epoch))
	return sum(append(b, c.Rates...))
}

// checksum covers the columns that never change after the budget is first written.
func (r *BudgetRow) checksum() int32 {
	var room [256]byte
	b := append(room[:0], r.ID[:]...)
	b = append(b, r.Account[:]...)
	b = append(b, r.Parent[:]...)
	b = binary.AppendUvarint(b, uint64(r.Limit))
	b = binary.AppendUvarint(b, uint64(r.ValidUntil))
	return sum(b)
}

// damaged reports whether the checksum of a row as it is now differs from the stored checksum. A row of a version
// before there were checksums has the stored checksum 0, and is never reported.
func damaged(checksum, now int32) bool { return checksum != 0 && checksum != now }
