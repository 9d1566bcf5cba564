package metering

// maxSuspects bounds the subjects and lines that an audit notes for the next audit. When an audit finds more, the next
// audit begins with the same lines again.
const maxSuspects = 200

// appendSuspects encodes the subjects and lines that an audit found wrong, 33 bytes each: the kind and the id. The id
// of a line is its number and its table.
func appendSuspects(b []byte, suspects map[Subject]bool) []byte {
	for s := range suspects {
		if s.Kind != 0 {
			k := s.Key()
			b = append(b, k[:]...)
		}
	}
	return b
}

// readSuspects decodes what appendSuspects wrote.
func readSuspects(b []byte) (subjects, lines []Subject) {
	for ; len(b) >= 33; b = b[33:] {
		if s := SubjectOf(b[:33]); s.Kind == subjectLine {
			lines = append(lines, s)
		} else {
			subjects = append(subjects, s)
		}
	}
	return subjects, lines
}

// lookAgain compares lines once more with the rows that they name.
func (a *auditor) lookAgain(v *view, lines []Subject) error {
	for _, s := range lines {
		table, seq := s.line()
		set := new(lineSet)
		var err error
		if table == lineTransfer {
			err = v.s.Transfers(seq-1, seq, 1, func(seq int64, t TransferRow) {
				set.transfers = append(set.transfers, numbered[TransferRow]{seq, t})
			})
		} else {
			err = v.s.BudgetLines(seq-1, seq, 1, func(seq int64, l BudgetLine) {
				set.budgets = append(set.budgets, numbered[BudgetLine]{seq, l})
			})
		}
		if err != nil {
			return err
		}
		if err := set.lookUp(v.s); err != nil {
			return err
		}
		a.checkLines(set)
	}
	return nil
}
