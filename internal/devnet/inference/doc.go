// Package inference is a small inference server with the HTTP interface of vLLM. The demo uses it
// as its backend. Tests use it, with scripted faults, as a backend that fails.
//
// At its start it fits an n-gram model to an embedded text (corpus.txt, about 16 kB) and a
// tokenizer with about four bytes per token. It then answers OpenAI-style chat and completion
// requests at a realistic pace:
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
// The vector of a text depends only on the tokens of the text, so it is the same each time. The
// score of two texts says how near their vectors are.
//
// A request first waits in a bounded FIFO queue for one slot per sequence. Then it waits for its
// prefill time. Then it gets one token per sequence and step. Usage counts exactly the generated
// tokens: one content delta is one token, unless the server held text back because of a stop
// sequence. When a client hangs up, its slots are free at once.
//
// With Config.SimulateGPU the server also simulates the GPU that it would run on. It writes to a
// file what NVIDIA's library would read from that GPU, see gpu.go.
//
// Tests can make the server fail: Faults says how, and the table in faults.go lists the faults.
package inference
