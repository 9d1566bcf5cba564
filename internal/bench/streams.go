package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// eventEvery is the time between two events of a stream. It is long, as for a slow model, so that a
// thousand streams do not use the whole machine and the delays are not those of a full queue.
const eventEvery = 500 * time.Millisecond

// streamsPlan describes a load that opens many streams and watches them.
type streamsPlan struct {
	Addr        string
	Credentials string
	Accounts    int
	Streams     int
	For         time.Duration // how long the streams are watched, once all are open
	Processes   []int         // processes whose memory counts
}

// streamsResult is the result of one streamsPlan.
type streamsResult struct {
	Events int           `json:"events"`
	P50    time.Duration `json:"delay_p50_ns"` // from the backend's write to the reader
	P99    time.Duration `json:"delay_p99_ns"`
	Before int64         `json:"rss_before"` // bytes
	During int64         `json:"rss_during"` // median in bytes while the streams are watched
	CPU    time.Duration `json:"cpu_ns"`
}

// streamsRow is the result for one target with all its streams.
type streamsRow struct {
	Target    string        `json:"target"`
	Streams   int           `json:"streams"`
	PerStream int64         `json:"rss_bytes_per_stream"`
	Ratio     float64       `json:"rss_ratio_to_reverse_proxy"`
	P50       time.Duration `json:"delay_p50_ns"`
	P99       time.Duration `json:"delay_p99_ns"`
	AddedP50  time.Duration `json:"added_p50_ns"` // beyond the delay of the backend reached directly
	AddedP99  time.Duration `json:"added_p99_ns"`
	CPU       time.Duration `json:"cpu_ns_per_event"`
}

// measureStreams keeps many slow streams open on new processes, one target after another.
func measureStreams(ctx context.Context, s *site, o options, r *report) error {
	backend, err := s.serve(ctx, "backend", backendPlan{Events: 1 << 20, Every: eventEvery})
	if err != nil {
		return err
	}
	rounds := map[string][]streamsResult{}
	names := []string{nameDirect, nameProxy, "gateway, SQLite"}
	for round := range max(1, o.rounds/2) {
		plan := gatewayPlan{Store: s.path(fmt.Sprintf("streams-%d.db", round)), Backend: backend.Addr, Accounts: o.streams,
			Credentials: s.path("credentials-streams")}
		for _, name := range names {
			srv := backend
			switch name {
			case nameDirect:
			case nameProxy:
				srv, err = s.serve(ctx, "proxy", proxyPlan{Backend: backend.Addr})
			default:
				srv, err = s.serve(ctx, "gateway", plan)
			}
			if err != nil {
				return err
			}
			t := target{name: name, server: srv, processes: []int{srv.process.Pid()}, accounts: o.streams}
			if name == names[2] {
				t.credentials = plan.Credentials
			}
			result, err := s.watchStreams(ctx, t, o)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rounds[name] = append(rounds[name], result)
			if srv != backend {
				if err := s.stop(srv.process); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range names {
		r.Streams = append(r.Streams, sumStreams(name, o.streams, rounds[name], rounds[nameDirect]))
	}
	for i := range r.Streams {
		r.Streams[i].Ratio = float64(r.Streams[i].PerStream) / float64(max(r.Streams[1].PerStream, 1))
	}
	return s.stop(backend.process)
}

func (s *site) watchStreams(ctx context.Context, t target, o options) (result streamsResult, err error) {
	p := streamsPlan{Addr: t.server.Addr, Credentials: t.credentials, Accounts: t.accounts, Streams: o.streams, For: o.watch, Processes: t.processes}
	err = s.work(ctx, "streams", p, o.watch+time.Minute, &result)
	return result, err
}

func sumStreams(name string, streams int, rounds, direct []streamsResult) streamsRow {
	row := streamsRow{Target: name, Streams: streams}
	var p50, p99, added50, added99, cpu, memory []int64
	for i, r := range rounds {
		p50, p99 = append(p50, int64(r.P50)), append(p99, int64(r.P99))
		added50, added99 = append(added50, int64(r.P50-direct[i].P50)), append(added99, int64(r.P99-direct[i].P99))
		cpu = append(cpu, int64(r.CPU)/int64(max(r.Events, 1)))
		memory = append(memory, (r.During-r.Before)/int64(streams))
	}
	row.P50, row.P99 = time.Duration(median(p50)), time.Duration(median(p99))
	row.AddedP50, row.AddedP99 = time.Duration(median(added50)), time.Duration(median(added99))
	row.CPU, row.PerStream = time.Duration(median(cpu)), median(memory)
	return row
}

// runStreams is the process that reads all streams.
func runStreams(ctx context.Context, plan []byte, tell func(any) error) error {
	var p streamsPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	requests, err := loadPlan{Addr: p.Addr, Body: streamBody, Credentials: p.Credentials, Accounts: p.Accounts}.requests()
	if err != nil {
		return err
	}
	result, err := p.run(ctx, requests)
	if err != nil {
		return err
	}
	return tell(result)
}

func (p streamsPlan) run(ctx context.Context, requests [][]byte) (r streamsResult, err error) {
	before, err := measure(p.Processes)
	if err != nil {
		return r, err
	}
	readers, err := p.open(requests)
	for i := range readers {
		defer readers[i].conn.Close()
	}
	if err != nil {
		return r, err
	}
	begin := time.Now().Add(eventEvery) // by then all streams have begun to send
	end := begin.Add(p.For)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { readers[i].err = readers[i].read(begin, end) })
	}
	if err := p.watch(ctx, begin, end, &r); err != nil {
		return r, err
	}
	wg.Wait()
	var all []time.Duration
	for i := range readers {
		err = errors.Join(err, readers[i].err)
		all = append(all, readers[i].delays...)
	}
	r.Before, r.Events = before.rss, len(all)
	r.P50, r.P99 = quantiles(all)
	if want := p.Streams * int(p.For/eventEvery); err == nil && r.Events < want*9/10 {
		err = fmt.Errorf("%d events came, about %d were to", r.Events, want)
	}
	return r, err
}

// watch measures the target's memory and CPU time while the streams run.
func (p streamsPlan) watch(ctx context.Context, begin, end time.Time, r *streamsResult) error {
	var memory []int64
	var first, last usage
	for at := begin; at.Before(end); at = at.Add(eventEvery) {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return ctx.Err()
		}
		u, err := measure(p.Processes)
		if err != nil {
			return err
		}
		if at.Equal(begin) {
			first = u
		}
		last, memory = u, append(memory, u.rss)
	}
	r.During, r.CPU = median(memory), last.cpu-first.cpu
	return nil
}

// reader reads one stream.
type reader struct {
	conn   net.Conn
	in     *bufio.Reader
	delays []time.Duration
	err    error
}

// openAtOnce is how many streams are opened at the same time at most.
const openAtOnce = 64

// open opens all streams and reads the headers of their answers.
func (p streamsPlan) open(requests [][]byte) ([]reader, error) {
	readers := make([]reader, p.Streams)
	errs := make([]error, p.Streams)
	slots := make(chan struct{}, openAtOnce)
	var wg sync.WaitGroup
	for i := range readers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = readers[i].open(p.Addr, requests[i%len(requests)])
		})
	}
	wg.Wait()
	opened := slices.DeleteFunc(readers, func(r reader) bool { return r.conn == nil })
	return opened, errors.Join(errs...)
}

func (r *reader) open(addr string, request []byte) (err error) {
	if r.conn, err = net.Dial("tcp", addr); err != nil {
		return err
	}
	if err := r.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := r.conn.Write(request); err != nil {
		return err
	}
	r.in = bufio.NewReaderSize(r.conn, 1024)
	status, err := r.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	if len(status) < 12 || status[9:12] != strconv.Itoa(http.StatusOK) {
		return fmt.Errorf("open a stream: %s", status)
	}
	return nil
}

// read reads events until end. It records the age of each event that came after begin. It skips
// lines without a mark, which belong to HTTP.
func (r *reader) read(begin, end time.Time) error {
	if err := r.conn.SetReadDeadline(end); err != nil {
		return err
	}
	for {
		line, err := r.in.ReadSlice('\n')
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		_, rest, marked := bytes.Cut(line, []byte(eventMark))
		if !marked {
			continue
		}
		digits, _, _ := bytes.Cut(rest, []byte(`"`))
		sent, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil {
			return err
		}
		if now := time.Now(); now.After(begin) {
			r.delays = append(r.delays, time.Duration(now.UnixNano()-sent))
		}
	}
}
