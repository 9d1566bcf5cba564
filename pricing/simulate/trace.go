package simulate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"sluice.example/sluice/pricing"
)

// Trace is recorded load.
type Trace struct {
	Name string
	Rows []Row // at least 2, in order of time, the first at 0
}

// Row is what was recorded at one moment. NaN: not known.
type Row struct {
	At               float64 // seconds since the first row
	Running, Waiting float64 // requests
	Capacity         float64 // requests that could run at once
	Utilization      float64 // of the GPUs, 0..1
	Multiplier       float64 // of the price in force
	Signal           float64 // pressure, where load itself was not recorded (stored epochs)
}

const (
	maxTraceBytes = 256 << 20
	maxRows       = 1_000_000
	maxRequests   = 1e6 // running or waiting at once
)

func unknownRow(at float64) Row {
	n := math.NaN()
	return Row{At: at, Running: n, Waiting: n, Capacity: n, Utilization: n, Multiplier: n, Signal: n}
}

// ReadTrace reads a recording, of at most 256 MiB, and tells its format by its
// beginning: CSV, the JSON answer of a Prometheus range query, or a JSON list
// of the gateway's stored epochs. Its errors name the place.
func ReadTrace(name string, r io.Reader) (Trace, error) {
	in := bufio.NewReader(&capped{r: r, left: maxTraceBytes})
	rows, err := readRows(in)
	if err == nil {
		rows, err = inOrder(rows)
	}
	if err != nil {
		return Trace{}, fmt.Errorf("trace %s: %w", name, err)
	}
	return Trace{Name: name, Rows: rows}, nil
}

func readRows(in *bufio.Reader) ([]Row, error) {
	for {
		b, err := in.Peek(1)
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the file is empty")
		case err != nil:
			return nil, err
		case b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r':
			in.Discard(1)
		case b[0] == '{' || b[0] == '[':
			return readJSON(in)
		default:
			return readCSV(in)
		}
	}
}

// capped fails, rather than ends, where there is more than expected.
type capped struct {
	r    io.Reader
	left int
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("more than %d MiB", maxTraceBytes>>20)
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// inOrder checks times, makes the first 0, and carries values over where a row
// lacks them.
func inOrder(rows []Row) ([]Row, error) {
	if len(rows) < 2 {
		return nil, fmt.Errorf("want at least 2 moments, got %d", len(rows))
	}
	if len(rows) > maxRows {
		return nil, fmt.Errorf("want at most %d moments, got %d", maxRows, len(rows))
	}
	start := rows[0].At
	for i := range rows {
		rows[i].At -= start
		if i == 0 {
			continue
		}
		if !(rows[i].At > rows[i-1].At) {
			return nil, fmt.Errorf("moment %d is not after the one before it", i+1)
		}
		last := rows[i-1].values()
		for j, v := range rows[i].values() {
			if math.IsNaN(*v) {
				*v = *last[j]
			}
		}
	}
	if end := rows[len(rows)-1].At; end > maxSeconds {
		return nil, fmt.Errorf("want at most 31 days, got %.1f", end/86400)
	}
	return rows, nil
}

func (r *Row) values() [6]*float64 {
	return [...]*float64{&r.Running, &r.Waiting, &r.Capacity, &r.Utilization, &r.Multiplier, &r.Signal}
}

// set takes a value in, or says why it cannot be one. NaN is "not known".
func (r *Row) set(column string, v float64) error {
	if math.IsNaN(v) {
		return nil
	}
	field, most := r.column(column)
	if v < 0 || v > most || (v == 0 && (column == "capacity" || column == "multiplier")) {
		return fmt.Errorf("%s is %g, want 0 to %g", column, v, most)
	}
	*field = v
	return nil
}

// column is where a column goes and its largest value; nil: it is not used.
func (r *Row) column(name string) (field *float64, most float64) {
	switch name {
	case "running":
		return &r.Running, maxRequests
	case "waiting":
		return &r.Waiting, maxRequests
	case "capacity":
		return &r.Capacity, maxRequests
	case "utilization":
		return &r.Utilization, 1
	case "multiplier":
		return &r.Multiplier, pricing.MaxMultiplier
	case "signal":
		return &r.Signal, 1e6
	}
	return nil, 0
}

// Slots is the largest recorded capacity; 0 when none was recorded.
func (t Trace) Slots() int {
	most := 0.0
	for _, r := range t.Rows {
		most = max(most, orZero(r.Capacity))
	}
	return int(most)
}

// orZero is v, or 0 where it is not known.
func orZero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// Scenario turns what was recorded into the demand behind it. Where requests
// were counted, those that arrived are those by which running and waiting grew
// plus those that ended, at the pool's mean service time. Where only
// utilization or a signal was recorded, it is taken as the share of the pool
// that demand filled. The elasticity takes the price of the recording out.
//
// Utilization that the counted requests do not explain is work of others on
// those GPUs. Results are over the whole recording.
func (t Trace) Scenario(p Pool) (Scenario, error) {
	if err := p.validate(); err != nil {
		return Scenario{}, err
	}
	end := t.Rows[len(t.Rows)-1].At
	s := Scenario{
		Name: fmt.Sprintf("trace %s: %d slots, %v service, elasticity %g", t.Name, p.Slots, p.Service, p.Elasticity),
		Pool: p, End: end, To: end,
	}
	counted := slices.ContainsFunc(t.Rows, func(r Row) bool { return !math.IsNaN(r.Running) || !math.IsNaN(r.Waiting) })
	for i := 0; i < len(t.Rows)-1; {
		j := t.binEnd(i, p.Service.Seconds())
		flow := t.share(i, j, p) * float64(p.Slots) / p.Service.Seconds()
		if counted {
			flow = t.flow(i, j, p)
		}
		for _, r := range t.Rows[i:j] {
			d := Segment{At: r.At, Rate: flow}
			if counted {
				d.Rate *= atBasePrice(r, p)
				d.Others = max(0, orZero(r.Utilization)-(orZero(r.Running)+orZero(r.Waiting))/saturatingAt)
			}
			s.Demand = append(s.Demand, d)
		}
		i = j
	}
	return s, s.validate()
}

// saturatingAt is how many requests explain full utilization, as in
// pricing.Parts.
const saturatingAt = 4

// atBasePrice is how many times the demand there would have been at
// multiplier 1.
func atBasePrice(r Row, p Pool) float64 {
	if !(r.Multiplier > 0) {
		return 1
	}
	return math.Pow(r.Multiplier, p.Elasticity)
}

// share is the mean share of the pool that demand would have filled at
// multiplier 1 between rows i and j.
func (t Trace) share(i, j int, p Pool) float64 {
	sum := 0.0
	for k := i; k < j; k++ {
		share := orZero(t.Rows[k].Utilization)
		if !math.IsNaN(t.Rows[k].Signal) {
			share = t.Rows[k].Signal
		}
		sum += share * atBasePrice(t.Rows[k], p) * (t.Rows[k+1].At - t.Rows[k].At)
	}
	return sum / (t.Rows[j].At - t.Rows[i].At)
}

// binEnd is the row at which a bin that begins at row i ends: long enough that
// the chance in who ends when averages out.
func (t Trace) binEnd(i int, length float64) int {
	last := len(t.Rows) - 1
	j := i + 1
	for j < last && t.Rows[j].At-t.Rows[i].At < length {
		j++
	}
	if t.Rows[last].At-t.Rows[j].At < length {
		return last
	}
	return j
}

// flow is how many requests arrived per second between rows i and j.
func (t Trace) flow(i, j int, p Pool) float64 {
	present := func(r Row) float64 { return orZero(r.Running) + orZero(r.Waiting) }
	span := t.Rows[j].At - t.Rows[i].At
	grown := present(t.Rows[j]) - present(t.Rows[i])
	if i == 0 {
		grown = present(t.Rows[j]) // the simulated pool starts empty
	}
	ran := 0.0 // seconds
	for k := i; k < j; k++ {
		ran += orZero(t.Rows[k].Running) * (t.Rows[k+1].At - t.Rows[k].At)
	}
	return max(0, (grown+ran/p.Service.Seconds())/span)
}
