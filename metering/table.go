package metering

// Table is the rows of one kind that a batch touches. The ledger names their keys, the store loads the rows that exist,
// the ledger changes them, and the store writes the changes. Not safe for concurrent use.
type Table[K comparable, R any] struct {
	index map[K]int
	cells []*cell[K, R] // the first n are in use; the others are kept for the next batch
	n     int
}

type cell[K comparable, R any] struct {
	key     K
	row     R
	stored  bool // the store has a row
	present bool // there is a row after the decisions so far
	changed bool
	known   bool // the store need not load the row: it came from memory, or is known not to exist
	latest  bool // the store must load the row, because it changes without its account
}

// need names a row that the batch may touch.
func (t *Table[K, R]) need(k K) {
	if _, ok := t.index[k]; ok {
		return
	}
	if t.index == nil {
		t.index = make(map[K]int)
	}
	t.index[k] = t.n
	if t.n == len(t.cells) {
		t.cells = append(t.cells, new(cell[K, R]))
	}
	*t.cells[t.n] = cell[K, R]{key: k}
	t.n++
}

// needFresh names a row that does not exist yet, because the ledger made its key just now.
func (t *Table[K, R]) needFresh(k K) {
	if _, ok := t.index[k]; !ok {
		t.need(k)
		t.cells[t.index[k]].known = true
	}
}

// needLatest names a row whose present state the store must load. An earlier state from memory is not enough.
func (t *Table[K, R]) needLatest(k K) {
	t.need(k)
	t.cells[t.index[k]].latest = true
}

// recall sets the stored row from memory, without a load.
func (e *cell[K, R]) recall(row R) {
	e.row, e.stored, e.present, e.known = row, true, true, true
}

// recalled reports whether the row under a key came from memory.
func (t *Table[K, R]) recalled(k K) bool {
	i, ok := t.index[k]
	return ok && t.cells[i].known && t.cells[i].stored
}

// rewind takes back everything but the named keys.
func (t *Table[K, R]) rewind() {
	for _, e := range t.cells[:t.n] {
		*e = cell[K, R]{key: e.key, latest: e.latest}
	}
}

// reset forgets all rows and keeps the allocated memory.
func (t *Table[K, R]) reset() {
	clear(t.index)
	t.n = 0
}

// Len returns the number of named rows.
func (t *Table[K, R]) Len() int { return t.n }

// Keys yields the keys of the named rows, each once.
func (t *Table[K, R]) Keys(yield func(K) bool) {
	for _, e := range t.cells[:t.n] {
		if !yield(e.key) {
			return
		}
	}
}

// Missing yields the keys of the rows that the store must load.
func (t *Table[K, R]) Missing(yield func(K) bool) {
	for _, e := range t.cells[:t.n] {
		if !e.known && !yield(e.key) {
			return
		}
	}
}

// Loaded sets the row that the store has under a key. It ignores a key that was not named.
func (t *Table[K, R]) Loaded(k K, row R) {
	if i, ok := t.index[k]; ok {
		e := t.cells[i]
		e.row, e.stored, e.present = row, true, true
	}
}

// get returns the row, or nil when there is no row. A caller that changes the row must call touch.
func (t *Table[K, R]) get(k K) *R {
	if i, ok := t.index[k]; ok && t.cells[i].present {
		return &t.cells[i].row
	}
	return nil
}

// touch marks a row that get returned as changed.
func (t *Table[K, R]) touch(k K) {
	if i, ok := t.index[k]; ok {
		t.cells[i].changed = true
	}
}

// put makes or replaces the row under a key, and returns the row for further changes within the same decision. The key
// must have been named with need before.
func (t *Table[K, R]) put(k K, row R) *R {
	t.need(k)
	e := t.cells[t.index[k]]
	e.row, e.present, e.changed = row, true, true
	return &e.row
}

// open makes a row that the store lacks. The store writes this row only if touch is called.
func (t *Table[K, R]) open(k K, row R) {
	t.need(k)
	if e := t.cells[t.index[k]]; !e.present {
		e.row, e.present = row, true
	}
}

// remove deletes the row under a key.
func (t *Table[K, R]) remove(k K) {
	if i, ok := t.index[k]; ok && t.cells[i].present {
		t.cells[i].present, t.cells[i].changed = false, true
	}
}

// Inserted yields the changed rows that the store lacks. The caller may read them, but not keep them.
func (t *Table[K, R]) Inserted(yield func(*R) bool) {
	t.yieldRows(yield, func(e *cell[K, R]) bool { return e.present && !e.stored })
}

// Updated yields the changed rows that the store has in an older form.
func (t *Table[K, R]) Updated(yield func(*R) bool) {
	t.yieldRows(yield, func(e *cell[K, R]) bool { return e.present && e.stored })
}

// Upserted yields the rows of Inserted and of Updated.
func (t *Table[K, R]) Upserted(yield func(*R) bool) {
	t.yieldRows(yield, func(e *cell[K, R]) bool { return e.present })
}

func (t *Table[K, R]) yieldRows(yield func(*R) bool, want func(*cell[K, R]) bool) {
	for _, e := range t.cells[:t.n] {
		if e.changed && want(e) && !yield(&e.row) {
			return
		}
	}
}

// Deleted yields the rows that the store has and must delete.
func (t *Table[K, R]) Deleted(yield func(*R) bool) {
	t.yieldRows(yield, func(e *cell[K, R]) bool { return !e.present && e.stored })
}

// eachChanged calls fn with every row that the store must write or delete.
func (t *Table[K, R]) eachChanged(fn func(*R)) {
	for _, e := range t.cells[:t.n] {
		if e.changed && (e.present || e.stored) {
			fn(&e.row)
		}
	}
}

// changed reports whether the store must write or delete any row.
func (t *Table[K, R]) changed() bool {
	for _, e := range t.cells[:t.n] {
		if e.changed && (e.present || e.stored) {
			return true
		}
	}
	return false
}
