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
	Rows []Row // at least 2, sorted by time; the first is at 0
}

// Row is what was recorded at one moment. NaN means not known.
type Row struct {
	At               float64 // seconds since the first row
	Running, Waiting float64 // requests
	Capacity         float64 // requests that could run at once
	Utilization      float64 // utilization of the GPUs, 0..1
	Multiplier       float64 // multiplier of the price in force
	Signal           float64 // pressure, if load itself was not recorded (stored epochs)
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

// ReadTrace reads a recording of at most 256 MiB. It recognizes the format by the first character: CSV,
// the JSON answer of a Prometheus range query, or a JSON list of the gateway's stored epochs. Its
// errors name the place in the recording.
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

// capped returns an error, and not the end of the file, if there are more bytes than left says.
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

// inOrder checks that times rise, and shifts them so that the first is 0. If a row lacks a value,
// inOrder takes the value of the row before.
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

// set stores a value in its column, or returns why the value is impossible. NaN means not known, and
// changes nothing.
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

// column returns the field of a column and the field's largest value. A nil field means that the column
// is not used.
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

// Slots returns the largest recorded capacity. It returns 0 if no capacity was recorded.
func (t Trace) Slots() int {
	most := 0.0
	for _, r := range t.Rows {
		most = max(most, orZero(r.Capacity))
	}
	return int(most)
}

// orZero returns v, or 0 if v is not known.
func orZero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// Scenario computes the demand from what was recorded. If requests were counted, the number of arrivals
// is the growth of running and waiting plus the number of requests that ended, which follows from the
// pool's mean service time. If only utilization or a signal was recorded, it counts as the share of the
// pool that demand filled. The elasticity removes the effect of the recorded price on the demand.
//
// Utilization that the counted requests do not explain counts as the work of others on those GPUs.
// Results cover the whole recording.
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

// saturatingAt is how many requests explain full utilization, as in package pricing.
const saturatingAt = 4

// atBasePrice returns the factor from the recorded demand to the demand at multiplier 1.
func atBasePrice(r Row, p Pool) float64 {
	if !(r.Multiplier > 0) {
		return 1
	}
	return math.Pow(r.Multiplier, p.Elasticity)
}

// share returns the mean share of the pool that demand would have filled at multiplier 1 between rows i
// and j.
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

// binEnd returns the row at which a bin that begins at row i ends. The bin is long enough that the
// random ends of single requests average out.
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

// flow returns how many requests arrived per second between rows i and j.
func (t Trace) flow(i, j int, p Pool) float64 {
	present := func(r Row) float64 { return orZero(r.Running) + orZero(r.Waiting) }
	span := t.Rows[j].At - t.Rows[i].At
	grown := present(t.Rows[j]) - present(t.Rows[i])
	if i == 0 {
		grown = present(t.Rows[j]) // because the simulated pool starts empty
	}
	ran := 0.0 // request-seconds
	for k := i; k < j; k++ {
		ran += orZero(t.Rows[k].Running) * (t.Rows[k+1].At - t.Rows[k].At)
	}
	return max(0, (grown+ran/p.Service.Seconds())/span)
}
