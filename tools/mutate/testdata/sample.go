// Package sample has one example for each operator.
package sample

import (
	"errors"
	"fmt"
)

const lock = `SELECT a FROM t WHERE id = $1 AND b > $2 ORDER BY id FOR NO KEY UPDATE`

type store struct {
	log  logger
	open bool `json:"open"`
}

func (s *store) take(have, want int) (int, error) {
	if want > have {
		return 0, errors.New("short")
	}
	s.open = true
	s.log.Info("taken")
	if !s.open && have == 0 || want < 0 {
		return min(have, want), nil
	}
	have -= want
	for i := 0; i < 3; i++ {
		have++
	}
	switch have {
	case 1:
		s.note(-have)
	default:
		defer s.note(1)
	}
	return have + 1, s.check()
}

func text(a string) string { return "a " + a + fmt.Sprint(1) }
