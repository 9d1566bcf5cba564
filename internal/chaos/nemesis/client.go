package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
)

// client sends requests to the tellers, as a gateway does for an agent: reserve,
// report progress, extend, settle; and pays for them.
type client struct {
	play     *play
	name     string
	rng      *rand.Rand
	accounts []*account
	requests sync.WaitGroup // that run beside
	room     chan struct{}  // bounds them
}

// account is what its clients share.
type account struct {
	name    string
	budgets [][]string // chains, outermost first

	mu       sync.Mutex
	payments []invoice
}

func (a *account) pay(i invoice) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.payments = append(a.payments, i)
}

// paid is one of the account's payments; ok is false without any.
func (a *account) paid(rng *rand.Rand) (i invoice, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.payments) == 0 {
		return i, false
	}
	return a.payments[rng.IntN(len(a.payments))], true
}

func (a *account) all() []invoice {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.payments)
}

// run sends requests until the schedule ends, and ends those that are open.
func (c *client) run() {
	for _, a := range c.accounts {
		if len(a.all()) == 0 {
			c.pay(a)
		}
	}
	for !c.play.ended() {
		a := c.accounts[c.rng.IntN(len(c.accounts))]
		switch c.rng.IntN(10) {
		case 0:
			c.look(a)
		case 1, 2:
			c.keyed(a)
		default:
			c.request(a)
		}
		c.pause(0, 40)
	}
	c.requests.Wait()
}

// pause waits for some milliseconds, or until the schedule ends.
func (c *client) pause(least, most int) {
	select {
	case <-time.After(time.Duration(least+c.rng.IntN(most-least+1)) * time.Millisecond):
	case <-c.play.done:
	}
}

func (c *client) look(a *account) {
	if r := c.play.any(c.rng); r != nil {
		c.play.do(r, request{Op: history.Op{Client: c.name, Kind: history.Balance, Account: a.name}, Within: 1500})
	}
}

// pay pays an invoice, which the node reports some time later, and usually
// presents the payment until it is taken.
func (c *client) pay(a *account) {
	i := invoice{payment: c.play.name("p"), account: a.name, amount: int64(200 + c.rng.IntN(1300))}
	c.play.paid(&history.Op{Client: c.name, Kind: history.Pay, Account: a.name, Amount: i.amount, Payment: i.payment})
	a.pay(i)
	late := time.Duration(c.rng.IntN(1500)) * time.Millisecond
	if c.rng.IntN(10) > 0 {
		time.AfterFunc(late, func() { c.play.node.settle(i) })
	}
	if c.rng.IntN(8) == 0 {
		return // it is presented with a request, if at all
	}
	for !c.play.ended() {
		r := c.play.any(c.rng)
		if r != nil && c.present(r, i).Status == history.OK {
			return
		}
		c.pause(20, 100)
	}
}

func (c *client) present(r *replica, i invoice) *history.Op {
	return c.play.do(r, request{Within: 1500, Op: history.Op{Client: c.name, Kind: history.Deposit, Account: i.account,
		Amount: i.amount, Payment: i.payment}})
}

// ask is one request's plan.
type ask struct {
	account *account
	cost    int64
	bound   int64
	chain   []string
	key     string
}

func (c *client) plan(a *account) ask {
	k := ask{account: a, cost: int64(1 + c.rng.IntN(120))}
	k.bound = k.cost + int64(c.rng.IntN(60))
	if c.rng.IntN(10) == 0 { // the backend delivers more than it was asked for
		k.bound = max(1, k.cost-int64(c.rng.IntN(20)))
	}
	if c.rng.IntN(3) == 0 {
		k.chain = a.budgets[c.rng.IntN(len(a.budgets))]
	}
	return k
}

// request is one request from its reservation to its settlement.
func (c *client) request(a *account) {
	if r := c.play.any(c.rng); r != nil {
		k := c.plan(a)
		if op := c.reserve(r, k); op.Status == history.OK {
			c.begin(r, op, k)
		} else {
			c.refused(op, a)
		}
	}
}

// begin plays a request beside the client, which goes on with the next, unless
// it has many open.
func (c *client) begin(r *replica, op *history.Op, k ask) {
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 0))
	select {
	case c.room <- struct{}{}:
		c.requests.Go(func() {
			c.serve(r, op, k, rng)
			<-c.room
		})
	default:
		c.serve(r, op, k, rng)
	}
}

func (c *client) refused(op *history.Op, a *account) {
	switch {
	case op.Reason == history.Insufficient && c.rng.IntN(3) == 0:
		c.pay(a)
	case op.Status == history.Unknown:
		c.pause(20, 150)
	}
}

func (c *client) reserve(r *replica, k ask) *history.Op {
	q := request{Within: 1500, Op: history.Op{Client: c.name, Kind: history.Reserve, Account: k.account.name,
		Hold:   c.play.name("h"),
		Amount: k.bound, Budgets: k.chain, Key: k.key}}
	for _, b := range k.chain {
		q.Limits = append(q.Limits, c.play.budgets[b])
	}
	if i, ok := k.account.paid(c.rng); ok && c.rng.IntN(2) == 0 {
		q.Payment, q.Paid = i.payment, i.amount
	}
	return c.play.do(r, q)
}

// serve plays the request that a hold was made for. It may run beside the
// client, with a generator of its own.
func (c *client) serve(r *replica, hold *history.Op, k ask, rng *rand.Rand) {
	lasts := time.Duration(rng.IntN(100)) * time.Millisecond
	switch rng.IntN(12) {
	case 0, 1, 2:
		lasts = between(rng, 100*time.Millisecond, time.Second)
	case 3:
		lasts = between(rng, time.Second, 4*lease)
	}
	total, ends := hold.Amount, time.Now().Add(lasts)
	for step := int64(1); time.Now().Before(ends) && !c.play.ended(); step++ {
		select {
		case <-time.After(min(time.Until(ends), time.Duration(100+rng.IntN(150))*time.Millisecond)):
		case <-c.play.done:
		}
		if c.play.do(r, c.of(hold, history.Report, min(k.cost, step*max(1, k.cost/8)), 1000)).Reason == history.Gone {
			return
		}
		if rng.IntN(12) == 0 {
			more := int64(5 + rng.IntN(40))
			op := c.play.do(r, c.of(hold, history.Extend, total+more, 1500))
			if op.Status == history.OK {
				total += more
				k.cost += more / 2
			}
			if op.Reason == history.Swept || op.Reason == history.Gone {
				break
			}
		}
	}
	if rng.IntN(8) == 0 {
		k.cost = 0 // nothing was delivered
	}
	c.play.settle(r, c.of(hold, history.Settle, k.cost, 1500))
}

// of is a request about a hold, to the teller that made it.
func (c *client) of(hold *history.Op, kind history.Kind, amount, within int64) request {
	return request{Within: within, Op: history.Op{Client: c.name, Teller: hold.Teller, Kind: kind,
		Account: hold.Account, Hold: hold.Hold, Amount: amount}}
}

// keyed sends a request with an idempotency key and, as if its client had hung
// up, repeats it elsewhere while the first may still run.
func (c *client) keyed(a *account) {
	k := c.plan(a)
	k.key = c.play.name("k")
	for range 6 {
		r := c.play.any(c.rng)
		if r == nil || c.play.ended() {
			return
		}
		op := c.reserve(r, k)
		switch {
		case op.Status == history.OK:
			c.begin(r, op, k)
		case op.Reason == history.Duplicate && op.Answer.First != "":
			return
		case op.Reason == history.Insufficient:
			c.refused(op, a)
			return
		}
		c.pause(30, 400)
	}
}

// hurry pays, and sends requests with keys, until the first answer has come: what
// was answered in the last moment before a crash is what a database loses. The
// clients go on by themselves.
func (p *play) hurry() {
	answered := make(chan struct{}, 1)
	for i := range 4 {
		c := &client{play: p, name: "hasty", rng: rand.New(rand.NewPCG(p.seed, uint64(p.names.Add(1)))),
			room: make(chan struct{}, 6)}
		a := p.accounts[c.rng.IntN(len(p.accounts))]
		p.busy.Add(1)
		go func() {
			defer p.busy.Add(-1)
			if i < 2 {
				c.pay(a)
			} else {
				c.keyed(a)
			}
			select {
			case answered <- struct{}{}:
			default:
			}
			c.requests.Wait()
		}()
	}
	select {
	case <-answered:
	case <-time.After(lease / 5):
	}
}

// people makes the accounts and their clients: some accounts are one client's
// alone, so that what it is told can be reckoned exactly, others are shared.
func people(p *play) (accounts []*account, clients []*client) {
	const alone, shared, crowd = 4, 3, 7
	rng := rand.New(rand.NewPCG(p.seed, 1))
	for i := range alone + shared {
		a := &account{name: fmt.Sprintf("a%d", i+1)}
		for j := range 2 {
			outer := fmt.Sprintf("%s/%d", a.name, j+1)
			inner := outer + "/1"
			p.budgets[outer], p.budgets[inner] = int64(500+rng.IntN(2500)), int64(200+rng.IntN(1500))
			a.budgets = append(a.budgets, []string{outer}, []string{outer, inner})
		}
		accounts = append(accounts, a)
	}
	for i := range alone + crowd {
		c := &client{play: p, name: fmt.Sprintf("c%d", i+1), rng: rand.New(rand.NewPCG(p.seed, uint64(100+i))),
			accounts: accounts[alone:], room: make(chan struct{}, 6)}
		if i < alone {
			c.accounts = accounts[i : i+1]
		}
		clients = append(clients, c)
	}
	return accounts, clients
}
