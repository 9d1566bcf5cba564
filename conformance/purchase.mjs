// Makes a call with openai-node of which the test wants to know what was bought: the
// counterpart of gosdk/purchase.go.

// buy tells what came, also of a call that failed.
export async function buy(client, job, say) {
  const got = { choices: 0, events: 0, prompt_tokens: 0, completion_tokens: 0, finish: "", vectors: 0, dimensions: 0, norm: 0 };
  const abort = new AbortController();
  if (job.purchase.abort_ms) setTimeout(() => abort.abort(), job.purchase.abort_ms);
  try {
    await (job.purchase.api === "embeddings" ? vectors : completion)(client, job, abort, got);
  } finally {
    say(JSON.stringify(got));
  }
}

async function vectors(client, job, abort, got) {
  const { input, encoding, dimensions } = job.purchase;
  const request = { model: job.model, input };
  if (encoding) request.encoding_format = encoding;
  if (dimensions) request.dimensions = dimensions;
  const answer = await client.embeddings.create(request, { signal: abort.signal });
  let last = answer.data.at(-1).embedding;
  // The SDK decodes what it asked for by itself; what its user asked for, the user decodes.
  if (typeof last === "string") last = new Float32Array(new Uint8Array(Buffer.from(last, "base64")).buffer);
  got.vectors = answer.data.length;
  got.dimensions = last.length;
  got.norm = last.reduce((sum, x) => sum + x * x, 0);
  got.prompt_tokens = answer.usage.prompt_tokens;
}

async function completion(client, job, abort, got) {
  const { input, n, max_tokens, abort_events } = job.purchase;
  const request = { model: job.model, prompt: input, stream: job.stream };
  if (n) request.n = n;
  if (max_tokens) request.max_tokens = max_tokens;
  if (job.stream) request.stream_options = { include_usage: true };
  const answer = await client.completions.create(request, { signal: abort.signal });
  if (!job.stream) return count(answer, got);
  for await (const chunk of answer) {
    count(chunk, got);
    if (abort_events && got.events >= abort_events) abort.abort();
  }
}

// count takes in a document, or a chunk of a stream.
function count(part, got) {
  for (const choice of part.choices) {
    got.choices = Math.max(got.choices, choice.index + 1);
    if (choice.text) got.events++;
    if (choice.finish_reason) got.finish = choice.finish_reason;
  }
  if (part.usage) {
    got.prompt_tokens = part.usage.prompt_tokens;
    got.completion_tokens = part.usage.completion_tokens;
  }
}
