package metering

import (
	"encoding/binary"
	"hash/crc32"
)

// Most amounts of the ledger stand in two places, and an audit compares them: a charge
// with its line, a balance with the sum of its lines. Two stand in one place only: the
// hold of a charge and the limit of a sub-budget. A checksum over the columns that never
// change finds a change of those two. It shows damage and hand-made edits; it is no
// signature, because a program that can write the table can write a checksum as well.

// castagnoli is CRC-32C (RFC 3720, appendix B.4), for which processors have instructions.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of the bytes, never 0, which stands for none.
func sum(b []byte) int32 {
	if s := int32(crc32.Checksum(b, castagnoli)); s != 0 {
		return s
	}
	return 1
}

// checksum is over what stays as it was when the charge was first written, also when
// its owner replaces it later.
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

// checksum is over what stays as it was when the budget was first written.
func (r *BudgetRow) checksum() int32 {
	var room [256]byte
	b := append(room[:0], r.ID[:]...)
	b = append(b, r.Account[:]...)
	b = append(b, r.Parent[:]...)
	b = binary.AppendUvarint(b, uint64(r.Limit))
	b = binary.AppendUvarint(b, uint64(r.ValidUntil))
	return sum(b)
}

// damaged reports whether a row is not what its checksum says. Rows of versions before
// there were checksums have none.
func damaged(checksum, now int32) bool { return checksum != 0 && checksum != now }
