package main

import (
	"math/rand/v2"
	"sync"
	"time"

	"sluice/internal/chaos/nemesis/history"
)

// node is the Lightning node: the settled invoices of its history, which each
// teller's stream reports to the ledger.
type node struct {
	mu      sync.Mutex
	life    int // how often it was rebuilt
	settled []invoice
}

type invoice struct {
	payment, account string
	amount           int64
}

// nodeKey stays when a node is rebuilt from its seed.
const nodeKey = "02aa"

func (n *node) settle(i invoice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settled = append(n.settled, i)
}

// rebuild forgets all invoices: what is settled next has index 1 again.
func (n *node) rebuild() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.life++
	n.settled = nil
}

// after lists up to limit invoices beyond a settle index.
func (n *node) after(index, limit int) (life int, list []invoice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if index >= len(n.settled) {
		return n.life, nil
	}
	return n.life, append(list, n.settled[index:min(len(n.settled), index+limit)]...)
}

// stream is one teller's subscription to the node's settled invoices. It hands
// them over as the gateway does: each until the ledger has it, from the ledger's
// cursor on, and from the beginning after a rebuild. It repeats some, and swaps
// some, as lnd does when it replays.
type stream struct {
	play    *play
	replica *replica
	rng     *rand.Rand
	life    int
	at      int // settle index up to which everything was handed over
}

// run goes on until the schedule's end. Each incarnation of the teller begins anew.
func (s *stream) run() {
	for teller := ""; !s.play.ended(); {
		now := s.replica.now()
		if now == "" || now != teller && !s.join(now) {
			teller = ""
			time.Sleep(50 * time.Millisecond)
			continue
		}
		teller = now
		life, next := s.play.node.after(s.at, 2)
		if life != s.life {
			s.life, s.at = life, 0
			continue
		}
		if len(next) == 0 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.hand(teller, next)
	}
}

// join begins a subscription at the ledger's cursor.
func (s *stream) join(teller string) bool {
	life, _ := s.play.node.after(0, 0)
	a := s.replica.ask(teller, s.play.private(request{Op: history.Op{Kind: askCursor, Node: nodeKey}, Within: 1000}))
	if a.Status != history.OK {
		return false
	}
	// The node's history is told apart from the one before by the gateway; here it
	// is known. The invoice at the cursor comes again.
	if s.life == life && s.play.node.reaches(int(a.Index)) {
		s.at = max(0, int(a.Index)-1)
	} else {
		s.at = 0
	}
	s.life = life
	return true
}

func (n *node) reaches(index int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return index <= len(n.settled)
}

// hand gives the next invoices to the ledger. The index that goes with each is
// the end of the unbroken run.
func (s *stream) hand(teller string, next []invoice) {
	if len(next) == 2 && s.rng.IntN(4) == 0 {
		if s.credit(teller, next[1], s.at) && s.credit(teller, next[0], s.at+2) {
			s.at += 2
		}
		return
	}
	if !s.credit(teller, next[0], s.at+1) {
		return
	}
	if s.rng.IntN(5) == 0 {
		s.credit(teller, next[0], s.at+1)
	}
	s.at++
}

func (s *stream) credit(teller string, i invoice, index int) bool {
	op := &history.Op{Client: "lnd", Teller: teller, Kind: history.Credit, Account: i.account, Amount: i.amount,
		Payment: i.payment,
		Node:    nodeKey, Index: uint64(index)}
	if s.play.do(s.replica, request{Op: *op, Within: 2000}).Status == history.OK {
		return true
	}
	time.Sleep(time.Duration(30+s.rng.IntN(100)) * time.Millisecond)
	return false
}
