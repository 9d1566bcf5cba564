package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// pairRequest is one request to rank or score pairs of texts.
type pairRequest struct {
	inputs
	kind results
}

// readTexts takes one side of the pairs, under whichever name.
func (r *pairRequest) readTexts(m *member) error {
	side := &r.sides[1]
	switch m.key {
	case "query", "queries", "text_1", "data_1":
		side = &r.sides[0]
	}
	if *side != nil {
		return format.Refuse("%s comes beside another field with the same meaning; send one of them", m.key)
	}
	*side = m.value
	if rawjson.IsString(m.value) || m.value[0] == '[' {
		return nil
	}
	return format.Refuse("%s must be a text or a list of texts", m.key)
}

// pair makes the pairs: one text with each of a list, or two lists element by element.
// The names are those of the two sides, for refusals.
func (r *pairRequest) pair(left, right string) error {
	one, err := sizes(left, r.sides[0])
	if err != nil {
		return err
	}
	others, err := sizes(right, r.sides[1])
	if err != nil {
		return err
	}
	if len(one) != 1 && len(one) != len(others) {
		return format.RefuseParam(left, "%s has %d texts and %s has %d; send one, or as many", left, len(one), right, len(others))
	}
	for i, other := range others {
		first := one[i%len(one)]
		pair := textSize{bytes: format.AddSat(other.bytes, first.bytes), most: format.AddSat(other.most, first.most)}
		if err := r.addText(pair); err != nil {
			return err
		}
	}
	r.documents = int64(len(others))
	r.kind.want = r.documents
	return nil
}

// sizes is the size of each of the texts.
func sizes(name string, v []byte) (all []textSize, err error) {
	switch {
	case v == nil:
		return nil, format.RefuseParam(name, "%s is missing", name)
	case rawjson.IsString(v):
		return []textSize{sizeOf(v)}, nil
	}
	for c := rawjson.Elements(v); c.More(); {
		text := textOf(c.Value())
		if text == nil {
			return nil, format.RefuseParam(name, "%s[%d] must be a text, or an object with a text and nothing else", name, len(all))
		}
		if len(all) == hardItems {
			return nil, format.RefuseParam(name, "%s has more than %d elements; send fewer at once", name, hardItems)
		}
		all = append(all, sizeOf(text))
	}
	if len(all) == 0 {
		return nil, format.RefuseParam(name, "%s is empty; send at least one text", name)
	}
	return all, nil
}

// textOf is the JSON string of an element that is a text, or an object which has only
// a text; nil: it is something else.
func textOf(v []byte) (text []byte) {
	if rawjson.IsString(v) {
		return v
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		if string(key) != "text" || !rawjson.IsString(value) || text != nil {
			return nil
		}
		text = value
	}
	return text
}

// CountPrompt implements format.Request: the documents in one call, and the query,
// which is read with each of them, in a second one.
func (r *pairRequest) CountPrompt(p format.Profile, model string, l format.Limits) []format.Question {
	if p.Counting == format.CountNone || !r.Countable() { // before the texts are joined
		return nil
	}
	q, ok := format.CountText(p, model, joined(r.sides[1]))
	if !ok {
		return nil
	}
	q = r.counting(q, l)
	read, times := q.Read, r.timesRead()
	q.Next = func(answer []byte) (format.Question, error) {
		documents, err := read(answer)
		if err != nil {
			return format.Question{}, err
		}
		next, _ := format.CountText(p, model, joined(r.sides[0]))
		count := next.Read
		next.Read = func(answer []byte) (int64, error) {
			query, err := count(answer)
			return format.AddSat(documents, format.MulSat(query, times)), err
		}
		return next, nil
	}
	return []format.Question{q}
}

// timesRead is how often each text of the first side is read: once, where there are
// several, and one alone with each text of the second side.
func (r *pairRequest) timesRead() int64 {
	if !rawjson.IsString(r.sides[0]) {
		if n, err := sizes("", r.sides[0]); err != nil || len(n) > 1 {
			return 1
		}
	}
	return int64(len(r.texts))
}

// Meter implements format.Request.
func (r *pairRequest) Meter(b format.Bound, cal *format.Calibration, o format.MeterOptions) format.Meter {
	return newInputMeter(&r.inputs, &r.kind, b, cal, o)
}
