package pricing

import "time"

// Standing is why a price is what it is, as one process sees it now. Signal and BoundBy are newer than
// those of the epoch in force, because a new epoch is made only when the price changes.
type Standing struct {
	Model        string    `json:"model"`
	Policy       string    `json:"policy"`
	Epoch        int64     `json:"price_epoch"`
	Multiplier   float64   `json:"multiplier"` // multiplier of the epoch in force
	Signal       float64   `json:"signal"`     // smoothed pressure
	BoundBy      string    `json:"bound_by"`
	Pressure     float64   `json:"pressure"`               // at the last reading
	Fresh        bool      `json:"fresh"`                  // the pressure is fresh
	Fixed        float64   `json:"fixed,omitempty"`        // multiplier set by the operator's kill switch
	EnergyFloor  float64   `json:"energy_floor,omitempty"` // lowest multiplier that pays for electricity
	HookFailures uint64    `json:"hook_failures,omitempty"`
	Shadow       *Shadow   `json:"shadow,omitempty"`
	Leads        bool      `json:"leads"` // this process decides the price
	At           time.Time `json:"at"`
}

// Shadow is what a second policy would have decided.
type Shadow struct {
	Policy     string  `json:"policy"`
	Multiplier float64 `json:"multiplier"`
	BoundBy    string  `json:"bound_by"`
}
