// Package inference is a small but real inference server with the HTTP surface
// of vLLM: the backend of the demo, and, scripted, the fault backend of tests.
//
// At start it fits an n-gram model on an embedded text (corpus.txt, about 16
// kB) and a tokenizer of about four bytes per token; it then answers
// OpenAI-style chat and completion requests at a realistic pace:
//
//	srv, err := inference.New(inference.Config{Model: "demo", TokensPerSecond: 60})
//	if err != nil {
//		return err
//	}
//	return srv.ListenAndServe(ctx, "127.0.0.1:8000")
//
// Endpoints: POST /v1/chat/completions and /v1/completions (unary and SSE), POST
// /v1/embeddings, POST /v1/rerank, POST /v1/score, GET /v1/models, POST /tokenize,
// POST /detokenize, GET /health, GET /metrics.
//
// A vector is made of the tokens of its text alone, so that it is the same each time;
// a score is how near the vectors of two texts are.
//
// A request waits in a bounded FIFO queue for one slot per sequence, then pays
// its prefill time, then gets one token per sequence and step. Usage counts
// exactly the tokens that were generated: one content delta is one token
// unless a stop sequence held text back. A client that hangs up frees its
// slots at once.
//
// With Config.SimulateGPU it also plays the GPU that it would run on: a file
// says what NVIDIA's library would read there, see gpu.go.
//
// Tests make it misbehave: see Faults for how, and the table in faults.go for
// what it can do.
package inference
