package main

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestDraw: a seed stands for one schedule, other seeds for others, and only
// wanted faults come.
func TestDraw(t *testing.T) {
	for store, kinds := range kindsOf {
		seen := map[string]int{}
		for seed := uint64(1); seed <= 500; seed++ {
			s := draw(seed, store, kinds)
			if again := draw(seed, store, kinds); !reflect.DeepEqual(s, again) {
				t.Fatalf("seed %d: %v, then %v", seed, s.strings(), again.strings())
			}
			if other := draw(seed+1, store, kinds); reflect.DeepEqual(s.faults, other.faults) {
				t.Errorf("seeds %d and %d are the same: %v", seed, seed+1, s.strings())
			}
			failovers := 0
			for _, f := range s.faults {
				seen[f.kind]++
				if f.at < 0 || f.at > length || f.lasts < 0 || f.lasts > 4*lease || f.target >= s.replicas {
					t.Errorf("seed %d: %s", seed, f)
				}
				if f.kind == faultFailover {
					failovers++
				}
			}
			if failovers > 1 {
				t.Errorf("seed %d fails over %d times, and there is one standby", seed, failovers)
			}
		}
		for _, kind := range kinds {
			if seen[kind] < 50 {
				t.Errorf("%s: %s came %d times in 500 schedules", store, kind, seen[kind])
			}
		}
	}
	for seed := uint64(1); seed <= 50; seed++ {
		for _, f := range draw(seed, storePostgres, []string{faultKill, faultClock}).faults {
			if f.kind != faultKill && f.kind != faultClock {
				t.Errorf("seed %d: %s was not wanted", seed, f)
			}
		}
	}
}

// TestLanes: faults of one process, or of one server, never overlap.
func TestLanes(t *testing.T) {
	s := schedule{faults: []fault{
		{kind: faultKill, target: 0}, {kind: faultStop, target: 0}, {kind: faultKill, target: 1}, {kind: faultCut, target: 0},
		{kind: faultCrash}, {kind: faultFailover}, {kind: faultClock},
	}}
	var sizes []int
	for _, lane := range s.lanes() {
		sizes = append(sizes, len(lane))
	}
	slices.Sort(sizes)
	if want := []int{1, 1, 1, 2, 2}; !slices.Equal(sizes, want) {
		t.Errorf("lanes of %v faults, want %v", sizes, want)
	}
}

// TestSafe: what was answered before a look whose position the standby has is
// safe, and nothing after.
func TestSafe(t *testing.T) {
	r := &recorder{began: time.Now()}
	l := &positions{}
	for i, at := range []string{"0/100", "0/200", "1/0"} {
		n, err := parsePosition(at)
		if err != nil {
			t.Fatal(err)
		}
		l.seen = append(l.seen, position{r.began.Add(time.Duration(i+1) * time.Second), n})
	}
	for received, want := range map[string]int64{"0/FF": 0, "0/1FF": 1_000_000, "0/FFFFFFFF": 2_000_000,
		"1/0": 3_000_000} {
		if got, err := l.until(received, r); err != nil || got != want {
			t.Errorf("received %s: safe until %d µs, want %d (%v)", received, got, want, err)
		}
	}
	if _, err := parsePosition("nonsense"); err == nil {
		t.Error("nonsense is a position")
	}
}

func TestOptions(t *testing.T) {
	o, err := parse([]string{"-seed", "7", "-store", "sqlite", "-faults", "kill,failover"})
	if err != nil || o.first != 7 || o.seeds != 1 || !slices.Equal(o.kinds(storeSQLite), []string{faultKill}) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parse([]string{"-faults", "none"}); err != nil || len(o.kinds(storePostgres)) != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-store", "oracle"}, {"-faults", "fire"}, {"-seeds", "0"}, {"-parallel", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
