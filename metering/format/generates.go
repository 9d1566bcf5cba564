package format

// Generates reports whether a model writes tokens when it is called through an API, as
// the bound of the API's smallest request shows. Of an API that has texts read and no
// more, answers have no completion.
func Generates(f Format) bool {
	path, body := f.Smallest()
	r, err := f.Parse(path, []byte(body), func(string) *Policy { return new(Policy) })
	if err != nil {
		return true // the careful answer: a cap is wanted
	}
	b, err := r.Bound(Limits{})
	return err != nil || b.Output > 0
}
