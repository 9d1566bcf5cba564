package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// These constants are for the stopped part. Three replicas share a database and its accounts. One
// of them is stopped in the middle of its work, like a paused virtual machine.
const (
	replicas       = 3
	sharedAccounts = 1000
	calm           = 1500 * time.Millisecond // pause between the end of a stop and beforeStop of the next
	beforeStop     = time.Second             // time before a stop with which the stop is compared
	stopFor        = 4 * time.Second
	stopGrace      = 2 * time.Second // the other replicas must have recovered after this time
	stopBucket     = 250 * time.Millisecond
	stopGoal       = 0.5
)

// stop is what the two other replicas did during one stop.
type stop struct {
	Replica   int           `json:"replica"`
	Before    float64       `json:"before_pairs_per_second"`
	Buckets   []float64     `json:"ratios_per_bucket"` // rate in each bucket after the stop ÷ Before
	After     float64       `json:"ratio_after_grace"` // rate from stopGrace on ÷ Before
	Recovered time.Duration `json:"recovered_ns"`      // end of the last bucket below stopGoal; stopFor: no recovery
	at        time.Time
}

// stoppedRow holds the results of all stops.
type stoppedRow struct {
	Stops   []stop `json:"stops"`
	Refused int    `json:"refused"` // refused reservations of all replicas
}

// measureStopped stops one of three replicas at a random moment, again and again.
func measureStopped(ctx context.Context, s *site, o options, r *report) (err error) {
	where, err := s.freshLedger(ctx, "PostgreSQL", "stopped", sharedAccounts, 0)
	if err != nil {
		return err
	}
	var running [replicas]replica
	for i := range running {
		if running[i], err = s.startClients(ctx, where, 0); err != nil {
			return err
		}
	}
	var row stoppedRow
	for range o.stops {
		// The pause has a random length, so that a stop may come between any two steps of a batch.
		if err := pause(ctx, calm+beforeStop+rand.N(100*time.Millisecond)); err != nil {
			return err
		}
		st := stop{Replica: rand.IntN(replicas)}
		if err := running[st.Replica].hold(ctx, &st); err != nil {
			return err
		}
		row.Stops = append(row.Stops, st)
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	var lines [replicas]timeline
	for i := range running {
		if lines[i], err = s.endClients(running[i]); err != nil {
			return err
		}
		row.Refused += lines[i].Refused
	}
	for i := range row.Stops {
		if err := row.Stops[i].sum(lines[:]); err != nil {
			return err
		}
	}
	r.Stopped = &row
	return s.dropLedger(ctx, where)
}

// hold stops a replica for stopFor.
func (r replica) hold(ctx context.Context, st *stop) error {
	st.at = time.Now()
	if err := syscall.Kill(r.Pid(), syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop a replica: %w: %w", err, r.Exit())
	}
	waited := pause(ctx, stopFor)
	return errors.Join(waited, syscall.Kill(r.Pid(), syscall.SIGCONT))
}

// sum compares the rates of the other replicas after the stop with their rates before it.
func (st *stop) sum(lines []timeline) error {
	rate := func(from, to time.Duration) (sum float64) {
		for i := range lines {
			if i != st.Replica {
				sum += lines[i].perSecond(lines[i].Others, st.at.Add(from), st.at.Add(to))
			}
		}
		return sum
	}
	if st.Before = rate(-beforeStop, 0); st.Before == 0 {
		return errors.New("the replicas did nothing before a stop")
	}
	for from := time.Duration(0); from < stopFor; from += stopBucket {
		ratio := rate(from, from+stopBucket) / st.Before
		if st.Buckets = append(st.Buckets, ratio); ratio < stopGoal {
			st.Recovered = from + stopBucket
		}
	}
	st.After = rate(stopGrace, stopFor) / st.Before
	return nil
}

// figures returns one figure of each stop.
func (row *stoppedRow) figures(of func(*stop) float64) (list []float64) {
	for i := range row.Stops {
		list = append(list, of(&row.Stops[i]))
	}
	return list
}

func (row *stoppedRow) after() []float64 {
	return row.figures(func(s *stop) float64 { return s.After })
}

func (r *report) stoppedTable(w io.Writer) {
	row := r.Stopped
	before := row.figures(func(s *stop) float64 { return s.Before })
	worst := row.figures(func(s *stop) float64 { return slices.Min(s.Buckets) })
	recovered := row.figures(func(s *stop) float64 { return s.Recovered.Seconds() })
	below := 0
	for _, v := range row.after() {
		if v < stopGoal {
			below++
		}
	}
	beginTable(w, fmt.Sprintf("One of %d replicas stopped, %d accounts shared, a client for each at each replica",
		replicas, sharedAccounts), "stops", "others' pairs/s before", fmt.Sprintf("ratio from %s on, median (range)", stopGrace),
		fmt.Sprintf("stops below %.1f then", stopGoal), fmt.Sprintf("worst %s, median (range)", stopBucket),
		fmt.Sprintf("until %.1f, median (longest)", stopGoal), "refused")
	fmt.Fprintf(w, "| %d | %s | %s | %d | %s | %.2f s (%.2f s) | %s |\n", len(row.Stops), count(median(before)),
		spread(row.after()), below, spread(worst), median(recovered), slices.Max(recovered), count(float64(row.Refused)))
}

// spread returns the median of ratios and their range as text.
func spread(list []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(list), slices.Min(list), slices.Max(list))
}

// stoppedGoals returns the goals of the stopped part. The worst stop decides.
func (r *report) stoppedGoals() []goal {
	if r.Stopped == nil {
		return nil
	}
	least := slices.Min(r.Stopped.after())
	what := fmt.Sprintf("a replica stopped: from %s on the others have at least %.1f of their rate before, "+
		"at each of %d stops", stopGrace, stopGoal, len(r.Stopped.Stops))
	return []goal{{what, fmt.Sprintf("%.3f", least), least >= stopGoal}}
}
