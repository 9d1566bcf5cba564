package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// capOf reads a cap in tokens; 0 where it says that there is none: null, as SDKs
// write an absent one, and -1, as llama.cpp and Ollama do. 0 is refused: to one
// engine it is no limit, to another one token, to a third none.
func capOf(name string, v []byte) (int64, error) {
	n, ok := rawjson.Whole(v)
	switch {
	case rawjson.IsNull(v) || (ok && n == -1):
		return 0, nil
	case !ok || n < 1:
		return 0, format.RefuseParam(name,
			"%s must be a whole number from 1 on; give the most tokens to generate, or leave it out", name)
	}
	return n, nil
}

// countOf reads a number of completions, at least 1; null is 1.
func countOf(name string, v []byte) (int64, error) {
	n, ok := rawjson.Whole(v)
	switch {
	case rawjson.IsNull(v):
		return 1, nil
	case !ok || n < 1:
		return 0, format.RefuseParam(name, "%s must be a whole number from 1 on; leave it out for one", name)
	}
	return n, nil
}
