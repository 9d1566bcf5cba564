package format

import (
	"bytes"

	"sluice.example/sluice/metering/format/rawjson"
)

// MemberModel is the member of an answer that names the model.
const MemberModel = "model"

// Renamer shows the public name of a model in a document that passes in pieces. The
// zero value changes nothing.
type Renamer struct{ outline *rawjson.Outline }

// NewRenamer shows public, a JSON string; nil: what the backend wrote.
func NewRenamer(public []byte) Renamer {
	if public == nil {
		return Renamer{}
	}
	o := rawjson.NewOutline(nil, func(string, []byte) error { return nil })
	o.Rename(MemberModel, public)
	return Renamer{o}
}

// Piece is the next piece as the client gets it. piece is not changed. From where the
// document is no JSON, nothing is renamed.
func (r Renamer) Piece(piece []byte) []byte {
	if r.outline == nil || r.outline.Add(piece) != nil {
		return piece
	}
	if !r.outline.Renames() {
		return piece
	}
	return r.outline.Renamed(bytes.Clone(piece))
}
