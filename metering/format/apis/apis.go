// Package apis is the table of the APIs that can be sold.
package apis

import (
	"slices"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// all is the table. A new API is a folder below metering/format and a line here.
var all = []format.Format{
	openai.Chat,
	openai.Completions,
	openai.Embeddings,
	openai.Rerank,
	openai.Score,
}

// All are the APIs, the one first that a model is sold through unless its owner says
// otherwise.
func All() []format.Format { return slices.Clone(all) }

// Names are the names of all.
func Names() []string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name()
	}
	return names
}
