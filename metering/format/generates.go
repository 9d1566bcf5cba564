package format

import "sluice.example/sluice/pricing"

// Generates reports whether a model writes tokens when it is called through an API, as
// the bound of the API's smallest request shows. Of an API that has texts read and no
// more, answers have no completion.
func Generates(f Format) bool { return Meters(f, pricing.OutputTokens) }

// Meters reports whether an API is metered by a unit that bounds have, as the bound of
// its smallest request shows.
func Meters(f Format, u pricing.Unit) bool {
	path, body := f.Smallest()
	r, err := f.Parse(path, []byte(body), func(string) *Policy { return new(Policy) })
	if err != nil {
		return true // the careful answer: a cap is wanted
	}
	b, err := r.Bound(Limits{})
	return err != nil || b.Units()[u] > 0
}
