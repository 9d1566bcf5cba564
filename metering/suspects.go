package metering

// maxSuspects bounds what is looked at again. When an audit finds more, the next
// one begins where it did.
const maxSuspects = 200

// appendSuspects writes the subjects that an audit found wrong: each as its kind
// and its id, 33 bytes. A line has its number, then its table, as its id.
func appendSuspects(b []byte, suspects map[Subject]bool) []byte {
	for s := range suspects {
		if s.Kind != 0 {
			k := s.Key()
			b = append(b, k[:]...)
		}
	}
	return b
}

// readSuspects reads what appendSuspects wrote.
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
