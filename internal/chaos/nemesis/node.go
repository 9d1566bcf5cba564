package main

import (
	"math/rand/v2"
	"sync"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
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

// at is the payment settled at an index, from 1; "": none yet.
func (n *node) at(index int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if index < 1 || index > len(n.settled) {
		return ""
	}
	return n.settled[index-1].payment
}

// reached is how many invoices have settled in the node's present history.
func (n *node) reached() (life, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life, len(n.settled)
}

// stream is one teller's subscription to the node's settled invoices. It hands
// them over as the gateway does: each until the ledger has it, from the ledger's
// cursor on. Where another invoice than the cursor's is settled at its index, the
// node was rebuilt: then all are handed over, and only afterwards the cursor is
// replaced. The stream repeats some invoices, and swaps some, as lnd does when it
// replays.
type stream struct {
	play    *play
	replica *replica
	rng     *rand.Rand
	life    int
	at      int // settle index up to which everything was handed over
	listed  int // of a new history: what had settled when it was joined; 0: the cursor goes on
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
		switch {
		case life != s.life:
			teller = "" // the connection to the node broke
		case s.listed > 0 && s.at >= s.listed:
			s.restart(teller)
		case len(next) == 0:
			time.Sleep(20 * time.Millisecond)
		default:
			s.hand(teller, next)
		}
	}
}

// join begins a subscription at the ledger's cursor, if it belongs to the node's
// present history. The invoice at the cursor comes again.
func (s *stream) join(teller string) bool {
	life, count := s.play.node.reached()
	a := s.replica.ask(teller, s.play.private(request{Op: history.Op{Kind: askCursor, Node: nodeKey}, Within: 1000}))
	if a.Status != history.OK {
		return false
	}
	s.life, s.at, s.listed = life, 0, count
	if last := s.play.node.at(int(a.Index)); last != "" && paymentHash(last).String() == a.Hash {
		s.at, s.listed = int(a.Index)-1, 0
	}
	return true
}

// restart replaces the cursor once everything up to it was handed over.
func (s *stream) restart(teller string) {
	op := history.Op{Kind: askRestart, Node: nodeKey, Index: uint64(s.at)}
	a := s.replica.ask(teller, s.play.private(request{Op: op, Last: s.play.node.at(s.at), Within: 1000}))
	if a.Status == history.OK {
		s.listed = 0
	} else {
		time.Sleep(50 * time.Millisecond)
	}
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
	last := s.play.node.at(index)
	if s.listed > 0 || last == "" { // the cursor stays until all of a new history is handed over
		index, last = 0, ""
	}
	op := &history.Op{Client: "lnd", Teller: teller, Kind: history.Credit, Account: i.account, Amount: i.amount,
		Payment: i.payment, Node: nodeKey, Index: uint64(index)}
	if s.play.do(s.replica, request{Op: *op, Last: last, Within: 2000}).Status == history.OK {
		return true
	}
	time.Sleep(time.Duration(30+s.rng.IntN(100)) * time.Millisecond)
	return false
}
