package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loadPlan describes one round of load. It is a closed loop: each connection sends its next request
// when the last request was answered.
type loadPlan struct {
	Addr        string
	Body        string
	Credentials string // file with one Authorization header per line; "": no header is sent
	Accounts    int    // how many of the credentials take turns; 0: all
	Conns       int
	Warm, For   time.Duration
	Once        bool // send one request per account, and measure nothing
	Status      int  // status that every answer must have
	Processes   []int
}

// loadResult is the result of one round.
type loadResult struct {
	Requests  int           `json:"requests"`
	Elapsed   time.Duration `json:"elapsed_ns"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	CPU       time.Duration `json:"cpu_ns"`       // of the processes in the plan, during the measured time
	Generator time.Duration `json:"generator_ns"` // CPU time of the load generator
}

// runLoad is the process of the load generator.
func runLoad(ctx context.Context, plan []byte, tell func(any) error) error {
	debug.SetGCPercent(1000) // the generator keeps little memory, and its collection must not affect the measurement
	var p loadPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	requests, err := p.requests()
	if err != nil {
		return err
	}
	result, err := p.run(ctx, requests)
	if err != nil {
		return err
	}
	return tell(result)
}

// requests returns one request per account, as bytes.
func (p loadPlan) requests() ([][]byte, error) {
	credentials := []string{""}
	if p.Credentials != "" {
		b, err := os.ReadFile(p.Credentials)
		if err != nil {
			return nil, err
		}
		credentials = strings.Split(strings.TrimSpace(string(b)), "\n")
		if p.Accounts > 0 {
			credentials = credentials[:min(p.Accounts, len(credentials))]
		}
	}
	requests := make([][]byte, len(credentials))
	for i, c := range credentials {
		requests[i] = formatRequest(p.Addr, c, p.Body)
	}
	return requests, nil
}

func formatRequest(host, credential, body string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: */*\r\nUser-Agent: sluice-bench\r\n", chatPath, host)
	if credential != "" {
		fmt.Fprintf(&b, "Authorization: %s\r\n", credential)
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.Bytes()
}

// run drives all connections and returns their joint result.
func (p loadPlan) run(ctx context.Context, requests [][]byte) (r loadResult, err error) {
	workers := make([]worker, p.Conns)
	for i := range workers {
		w := &workers[i]
		w.requests, w.next, w.stride, w.status = requests, i%len(requests), p.Conns, p.Status
		if w.conn, err = net.Dial("tcp", p.Addr); err != nil {
			return r, err
		}
		defer w.conn.Close()
	}
	begin := time.Now().Add(p.Warm)
	end := begin.Add(p.For)
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		if err := w.conn.SetDeadline(end.Add(30 * time.Second)); err != nil {
			return r, err
		}
		if p.Once {
			wg.Go(func() { w.err = w.each(i) })
		} else {
			wg.Go(func() { w.err = w.loop(begin, end) })
		}
	}
	if !p.Once {
		if err := p.watch(ctx, begin, end, &r); err != nil {
			return r, err
		}
	}
	wg.Wait()
	var all []time.Duration
	for i := range workers {
		err = errors.Join(err, workers[i].err)
		all = append(all, workers[i].took...)
	}
	r.Requests = len(all)
	r.P50, r.P99 = quantiles(all)
	return r, err
}

// watch measures the CPU time of the target and of this process from begin to end.
func (p loadPlan) watch(ctx context.Context, begin, end time.Time, r *loadResult) error {
	var at [2]usage
	var own [2]usage
	for i, when := range []time.Time{begin, end} {
		select {
		case <-time.After(time.Until(when)):
		case <-ctx.Done():
			return ctx.Err()
		}
		var err1, err2 error
		at[i], err1 = measure(p.Processes)
		own[i], err2 = measure([]int{os.Getpid()})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
	}
	r.Elapsed = end.Sub(begin)
	r.CPU, r.Generator = at[1].cpu-at[0].cpu, own[1].cpu-own[0].cpu
	return nil
}

// worker drives one connection.
type worker struct {
	conn         net.Conn
	requests     [][]byte
	next, stride int
	status       int
	buf          [16 << 10]byte
	took         []time.Duration // times of the requests that ended within the measured time
	err          error
}

// loop sends requests until end. A request that is under way at end is answered, but not counted.
func (w *worker) loop(begin, end time.Time) error {
	for {
		start := time.Now()
		if !start.Before(end) {
			return nil
		}
		if err := w.exchange(w.requests[w.next]); err != nil {
			return err
		}
		if w.next += w.stride; w.next >= len(w.requests) {
			w.next %= len(w.requests)
		}
		if now := time.Now(); !now.Before(begin) && now.Before(end) {
			w.took = append(w.took, now.Sub(start))
		}
	}
}

// each sends every stride-th request once, beginning at first.
func (w *worker) each(first int) error {
	for i := first; i < len(w.requests); i += w.stride {
		if err := w.exchange(w.requests[i]); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends a request and reads the answer. The answer must have the expected status and a
// Content-Length.
func (w *worker) exchange(request []byte) error {
	if _, err := w.conn.Write(request); err != nil {
		return err
	}
	n, head := 0, -1
	for head < 0 {
		if n == len(w.buf) {
			return errors.New("the answer's header is too long")
		}
		more, err := w.conn.Read(w.buf[n:])
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		n += more
		head = bytes.Index(w.buf[:n], []byte("\r\n\r\n"))
	}
	length, err := checkHeader(w.buf[:head], w.status)
	if err != nil {
		return fmt.Errorf("%w: %s", err, w.buf[:min(n, 1024)])
	}
	for left := head + 4 + length - n; left > 0; {
		n, err := w.conn.Read(w.buf[:])
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		left -= n
	}
	return nil
}

var (
	statusLine   = []byte("HTTP/1.1 ")
	lengthHeader = []byte("\r\nContent-Length: ")
)

// checkHeader checks the status in an answer's header and returns the Content-Length.
func checkHeader(h []byte, status int) (length int, err error) {
	rest, ok := bytes.CutPrefix(h, statusLine)
	if !ok || len(rest) < 3 {
		return 0, errors.New("not an HTTP/1.1 answer")
	}
	if got, err := strconv.Atoi(string(rest[:3])); err != nil || got != status {
		return 0, fmt.Errorf("an answer with another status than %d", status)
	}
	_, value, ok := bytes.Cut(h, lengthHeader)
	if !ok {
		return 0, errors.New("an answer without Content-Length")
	}
	value, _, _ = bytes.Cut(value, []byte("\r"))
	return strconv.Atoi(string(value))
}

// quantiles sorts took and returns the median and the 99th percentile. It returns zeros when took
// is empty.
func quantiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}
