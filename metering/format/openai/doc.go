// Package openai is OpenAI's APIs as a meter sees them, Chat and Completions: what a
// request can cost at most, what must be sent to the backend so that it costs no
// more, and what an answer did cost, at every moment while it passes.
//
// A request, before anything is reserved:
//
//	req, err := openai.Parse(body)                   // *RequestError → 400
//	bound, err := req.Bound(limits)                // tokens, from above
//	upstream := req.Rewrite(openai.Rewrite{Model: "meta/llama", Cap: bound.Cap, ForceUsage: true})
//
// Its streamed answer, event by event, as received and byte for byte:
//
//	meter := openai.NewMeter(req, bound, calibration, openai.MeterOptions{Start: start})
//	events := openai.NewEvents(resp.Body, 0)
//	for {
//		event, err := events.Next()
//		out, last := meter.Event(event)            // out is nil where the client did not ask for the event
//		if last { break }                          // [DONE]: settle first, then send it
//		if _, err := w.Write(out); err == nil { meter.Delivered() }
//		usage, source := meter.Running()           // the charge if it ended here
//	}
//	usage, source, clamped := meter.Final(openai.Complete, time.Now())
//
// A unary answer is handed over whole with Meter.Unary, then Final.
//
// Embeddings, Rerank and Score are APIs by which a model reads texts and generates
// nothing. Their requests share the type inputs and their answers inputMeter, which
// reads a document of any length piece by piece.
//
// Bounds rest on one fact: a token is never shorter than a byte. Where the
// bytes of a request do not bound its prompt (images, files, a template sent
// along, fields this package does not know), the bound is the model's context
// length, or the request is refused. Nothing here does I/O or keeps state
// beyond one request, but for the Calibration of a model.
//
// Completions are a Request with prompts in place of messages, and a Meter that tells
// the prompts of a batch apart.
package openai
