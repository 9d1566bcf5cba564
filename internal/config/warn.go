package config

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"gopkg.in/macaroon.v2"
)

// warn notes a setting that works but may disappoint.
func (c *checker) warn(format string, args ...any) {
	c.cfg.Warnings = append(c.cfg.Warnings, fmt.Sprintf(format, args...))
}

// checkPrivate warns of a secret's file that others may read, or that anyone except the file's owner
// may change. The file's group may read it, because Kubernetes and systemd provide secrets in this way.
func (c *checker) checkPrivate(key, path string) {
	info, err := os.Stat(path)
	if err != nil {
		return // reported where the file is read
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		c.warn("%s: %s may be read or changed by others (mode %04o); make it private with chmod 600", key, path, mode)
	}
}

// invoiceRights are the rights of lnd's invoice.macaroon. Selling needs no other rights, and these
// rights cannot take money out of the node.
var invoiceRights = []string{"invoices:read", "invoices:write", "address:read", "address:write",
	"onchain:read", "info:read", "offchain:read"}

// checkRights warns of a macaroon that may do more on the node than selling needs, because a thief of
// such a macaroon could take the node's money.
func (c *checker) checkRights(key string, raw []byte) {
	var m macaroon.Macaroon
	if m.UnmarshalBinary(raw) != nil {
		return // reported before
	}
	rights, ok := lndRights(m.Id())
	if !ok {
		return // not in lnd's form, so its rights are not known
	}
	var more []string
	for _, r := range rights {
		if !slices.Contains(invoiceRights, r) {
			more = append(more, r)
		}
	}
	if len(more) > 0 {
		c.warn("%s: the macaroon allows more than selling needs (%s); use lnd's invoice.macaroon, or bake one with "+
			"invoices:read invoices:write", key, strings.Join(more[:min(len(more), 6)], ", "))
	}
}

// lndRights reads "entity:action" pairs from the identifier of lnd's macaroons. The identifier is a
// byte 3, then a protocol buffer of a nonce (1), a storage id (2) and operations (3). Each operation
// has an entity (1) and actions (2). lndRights ignores caveats, because caveats only restrict rights.
// ok is false if the identifier has another form.
func lndRights(id []byte) (rights []string, ok bool) {
	if len(id) == 0 || id[0] != 3 {
		return nil, false
	}
	ok = fields(id[1:], func(number uint64, value []byte) bool {
		if number != 3 {
			return true
		}
		entity, actions := "", []string(nil)
		good := fields(value, func(number uint64, value []byte) bool {
			switch number {
			case 1:
				entity = string(value)
			case 2:
				actions = append(actions, string(value))
			}
			return true
		})
		for _, a := range actions {
			rights = append(rights, entity+":"+a)
		}
		return good
	})
	return rights, ok
}

// fields calls use for each field of a protocol buffer in which every field has a length. It returns
// false if b has another form, or if use returned false.
func fields(b []byte, use func(number uint64, value []byte) bool) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag&7 != 2 {
			return false
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return false
		}
		if !use(tag>>3, b[n:n+int(size)]) {
			return false
		}
		b = b[n+int(size):]
	}
	return true
}
