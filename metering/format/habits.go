package format

import "slices"

// Habit is something that a backend does with every answer, and that nothing but its
// answers tells.
type Habit uint8

// The habits that answers can show.
const (
	EndsWithoutReason Habit = iota // its streams end with the marker, and none has a finish_reason
	OneCompletion                  // it makes one completion, whatever n says
	habits
)

// habit is what was seen of one Habit: it is one once more accounts than votesDefault
// have met it and no answer was otherwise.
type habit struct {
	voters  []uint64
	refuted bool
}

// Show notes that an answer to an account was what a habit would make it.
func (c *Calibration) Show(h Habit, voter uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := &c.habits[h]
	if !seen.refuted && len(seen.voters) <= votesDefault && !slices.Contains(seen.voters, voter) {
		seen.voters = append(seen.voters, voter)
	}
}

// Refute notes that an answer was not what a habit would make it: the backend does
// not have it, whatever is seen later.
func (c *Calibration) Refute(h Habit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.habits[h] = habit{refuted: true}
}

// Has reports whether the backend has shown the habit to several accounts, and never
// anything else.
func (c *Calibration) Has(h Habit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.habits[h].voters) > votesDefault
}
