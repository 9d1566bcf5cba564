package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/chaos/wire"
	"sluice.example/sluice/internal/lab/proc"
)

// replica is one teller as the player sees it: a process that ends and is
// started again, each time as a new incarnation.
type replica struct {
	name     string
	dir      string // sockets; a short path
	logs     string // folder
	args     []string
	wire     *wire.Wire // to the database; nil for SQLite
	launcher *proc.Launcher
	record   *recorder
	late     func(*replica, history.Op) // takes what took place after its client had left

	mu      sync.Mutex
	n       int // incarnations
	process *proc.Process
	conn    net.Conn
	out     *json.Encoder
	queue   chan request
	waiting map[int]*call
	clock   time.Duration
}

// call is a request without an answer yet.
type call struct {
	op     history.Op // as it was asked
	answer chan reply
	given  bool // the client has left
}

// start starts the next incarnation.
func (r *replica) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	id := r.id()
	socket := filepath.Join(r.dir, id)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"teller", "-socket", socket, "-lease", lease.String(), "-clock", r.clock.String()}, r.args...)
	p, err := r.launcher.Start(proc.Spec{Name: id, Path: self, Args: args, Log: filepath.Join(r.logs,
		"teller-"+id+".log")})
	if err != nil {
		return err
	}
	conn, err := dial(socket, p)
	if err != nil {
		p.Kill()
		return err
	}
	r.process, r.conn, r.out = p, conn, json.NewEncoder(conn)
	r.waiting, r.queue = map[int]*call{}, make(chan request, 4096)
	go r.write(conn, r.queue)
	go r.read(id, conn)
	r.record.note("start "+id, nil)
	return nil
}

func dial(socket string, p *proc.Process) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return conn, p.Await(ctx, "the teller listens", func(context.Context) (err error) {
		conn, err = net.Dial("unix", socket)
		return err
	})
}

// id names the incarnation; r.mu is held.
func (r *replica) id() string { return fmt.Sprintf("%s#%d", r.name, r.n) }

// now is the incarnation that runs; empty: none.
func (r *replica) now() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		return ""
	}
	return r.id()
}

// end ends the incarnation: kill -9, or in order.
func (r *replica) end(kill bool) {
	r.mu.Lock()
	p, id := r.process, r.id()
	r.mu.Unlock()
	r.record.span(id, history.Dead)
	if kill {
		p.Kill()
	} else {
		_ = p.Stop(3 * time.Second) // one that does not listen is killed
	}
	r.lost(id)
}

// lost answers everybody who waits for an incarnation that is gone.
func (r *replica) lost(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil || r.id() != id {
		return
	}
	r.conn.Close()
	r.conn = nil
	close(r.queue)
	for _, c := range r.waiting {
		c.answer <- reply{Status: history.Unknown, Reason: history.Gone}
	}
	r.waiting = nil
}

// signal stops (SIGSTOP) or continues the process.
func (r *replica) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		_ = syscall.Kill(r.process.Pid(), s) // it may have ended
	}
}

func (r *replica) write(conn net.Conn, queue chan request) {
	out := json.NewEncoder(conn)
	for q := range queue {
		_ = out.Encode(&q) // the reader notices the end
	}
}

func (r *replica) read(id string, conn net.Conn) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a reply
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			r.record.note("a line of "+id+" cannot be read: "+err.Error(), nil)
			continue
		}
		if a.Stall > 0 {
			r.record.past(id, "stalled", a.Stall)
			continue
		}
		r.take(id, a)
	}
	r.lost(id)
}

// take hands an answer to its client, or to those who clean up behind a client
// that has left.
func (r *replica) take(id string, a reply) {
	r.mu.Lock()
	if r.conn == nil || r.id() != id {
		r.mu.Unlock()
		return
	}
	c := r.waiting[a.ID]
	delete(r.waiting, a.ID)
	left := c != nil && c.given
	r.mu.Unlock()
	switch {
	case c == nil:
	case left:
		if a.Status == history.OK {
			r.late(r, c.op)
		}
	default:
		c.answer <- a
	}
}

// ask sends a request to an incarnation and waits for the answer. The client
// waits a little longer than the teller promises to.
func (r *replica) ask(id string, q request) reply {
	c := &call{op: q.Op, answer: make(chan reply, 2)}
	r.mu.Lock()
	if r.conn == nil || r.id() != id {
		r.mu.Unlock()
		return reply{Status: history.Fail, Reason: history.Gone}
	}
	r.waiting[q.ID] = c
	select {
	case r.queue <- q:
	default: // the teller stands still and its queue is full: nothing was sent
		delete(r.waiting, q.ID)
		r.mu.Unlock()
		return reply{Status: history.Fail, Reason: history.Busy}
	}
	r.mu.Unlock()
	select {
	case a := <-c.answer:
		return a
	case <-time.After(time.Duration(q.Within)*time.Millisecond + grace):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case a := <-c.answer: // both at once
		return a
	default:
	}
	c.given = true
	return reply{Status: history.Unknown, Reason: history.Late}
}

// grace is what an answer may take on its way.
const grace = 300 * time.Millisecond
