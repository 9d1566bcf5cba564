package metering

import (
	"testing"
	"time"
)

// TestObserver checks after which looks an owner is taken for dead.
func TestObserver(t *testing.T) {
	const lease = 10 * time.Second
	start := time.Unix(1000, 0)
	type look struct {
		at    int // seconds
		took  int // seconds
		era   uint64
		beat  int64
		blind bool // the store did not answer before this look
		dead  bool
		ready bool
	}
	for name, looks := range map[string][]look{
		"a lease":              {{at: 0}, {at: 4}, {at: 8}, {at: 10, dead: true, ready: true}},
		"a heartbeat":          {{at: 0}, {at: 4}, {at: 8, beat: 1}, {at: 12, beat: 1, ready: true}, {at: 16, beat: 1, ready: true}, {at: 18, beat: 1, dead: true, ready: true}},
		"a counter that falls": {{at: 0, beat: 5}, {at: 4, beat: 5}, {at: 8, beat: 3}, {at: 12, beat: 3, ready: true}},
		"a gap":                {{at: 0}, {at: 4}, {at: 10}, {at: 14}, {at: 18}, {at: 20, dead: true, ready: true}},
		"a slow answer":        {{at: 0}, {at: 4}, {at: 10, took: 6}, {at: 14}, {at: 19}, {at: 20, dead: true, ready: true}},
		"an answer overtaken":  {{at: 0}, {at: 4}, {at: 8}, {at: 9, took: 6}, {at: 10}, {at: 14}, {at: 18}, {at: 19, dead: true, ready: true}},
		"no answer":            {{at: 0}, {at: 4}, {at: 8, blind: true}, {at: 12}, {at: 16}, {at: 18, dead: true, ready: true}},
		"another server":       {{at: 0}, {at: 4}, {at: 8, era: 1}, {at: 12, era: 1}, {at: 16, era: 1}, {at: 18, era: 1, dead: true, ready: true}},
	} {
		o := newObserver(lease)
		for i, l := range looks {
			if l.blind {
				o.blind()
			}
			ended := start.Add(time.Duration(l.at) * time.Second)
			dead, ready := o.look(ended.Add(-time.Duration(l.took)*time.Second), ended, l.era, []OwnerRow{{ID: OwnerID{1}, Beat: l.beat}, {ID: OwnerID{2}, Fenced: true}})
			if (len(dead) == 1) != l.dead || ready != l.ready {
				t.Errorf("%s: look %d: dead %v, ready %v; want %v, %v", name, i, dead, ready, l.dead, l.ready)
			}
		}
	}
}
