// Makes calls with the SDKs for JavaScript and tells what their users see. Jobs come
// on standard input, results go to standard output, as JSON: see the tests beside
// this file, which run it.
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
import { ChatOpenAI } from "@langchain/openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { buy } from "./purchase.mjs";

const jobTimeout = 30_000; // ms; what hangs is a fault as well

// Each takes a job and a function for the text that its user sees; it throws what
// the SDK throws.
const sdks = {
  async "openai-node"(job, say) {
    const client = new OpenAI({ apiKey: job.key, baseURL: job.url, maxRetries: 0, defaultHeaders: job.headers });
    if (job.lookup) return say((await client.models.retrieve(job.model)).id);
    if (job.purchase) return buy(client, job, say);
    if (job.input) {
      const made = await client.embeddings.create({ model: job.model, input: job.input });
      return say(`${made.data.length} of ${made.data[0].embedding.length}, ${made.usage.prompt_tokens} tokens`);
    }
    if (job.text) return complete(client, job, say);
    const request = { model: job.model, messages: [{ role: "user", content: job.prompt }], stream: job.stream };
    const answer = await client.chat.completions.create(request);
    if (!job.stream) return say(answer.choices[0].message.content);
    for await (const chunk of answer) say(chunk.choices[0]?.delta?.content ?? "");
  },

  async "openai-node .stream()"(job, say) {
    const client = new OpenAI({ apiKey: job.key, baseURL: job.url, maxRetries: 0, defaultHeaders: job.headers });
    const stream = client.chat.completions.stream({ model: job.model, messages: [{ role: "user", content: job.prompt }] });
    stream.on("content", (delta) => say(delta));
    await stream.finalChatCompletion();
  },

  async "langchain"(job, say) {
    const model = new ChatOpenAI({
      model: job.model, apiKey: job.key, maxRetries: 0,
      configuration: { baseURL: job.url, defaultHeaders: job.headers },
    });
    if (!job.stream) return say((await model.invoke(job.prompt)).content);
    for await (const chunk of await model.stream(job.prompt)) say(chunk.content);
  },

  async "ai-sdk openai"(job, say) {
    const provider = createOpenAI({ apiKey: job.key, baseURL: job.url, headers: job.headers });
    await aiSDK(provider.chat(job.model), job, say);
  },

  async "ai-sdk openai-compatible"(job, say) {
    const provider = createOpenAICompatible({ name: "gateway", apiKey: job.key, baseURL: job.url, headers: job.headers });
    await aiSDK(provider(job.model), job, say);
  },

  // The gateway has no route of Anthropic's API yet: the SDK shows why.
  async "anthropic"(job, say) {
    const client = new Anthropic({ apiKey: job.key, baseURL: job.url.replace(/\/v1$/, ""), maxRetries: 0, defaultHeaders: job.headers });
    const answer = await client.messages.create({ model: job.model, max_tokens: 16, messages: [{ role: "user", content: job.prompt }] });
    say(answer.content?.[0]?.text);
  },
};

// complete goes on with a text, with the same text twice, or with its bytes as tokens.
async function complete(client, job, say) {
  const prompt = { one: job.prompt, batch: [job.prompt, job.prompt], tokens: [...Buffer.from(job.prompt)] }[job.text];
  const answer = await client.completions.create({ model: job.model, prompt, stream: job.stream });
  const texts = [];
  const add = (choices) => choices.forEach((c) => (texts[c.index] = (texts[c.index] ?? "") + c.text));
  if (job.stream) for await (const chunk of answer) add(chunk.choices);
  else add(answer.choices);
  say(texts.join("|"));
}

async function aiSDK(model, job, say) {
  if (!job.stream) return say((await generateText({ model, prompt: job.prompt, maxRetries: 0 })).text);
  const answer = streamText({ model, prompt: job.prompt, maxRetries: 0, onError() {} });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") say(part.text);
    if (part.type === "error") throw part.error;
  }
}

// text is what a user is shown of an error.
function text(error) {
  return error instanceof Error ? error.message : typeof error === "object" ? JSON.stringify(error) : String(error);
}

async function run(job) {
  const result = { name: job.name, raised: false, error: "", content: "" };
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the call hangs")), jobTimeout);
  });
  try {
    await Promise.race([sdks[job.sdk](job, (more) => (result.content += more)), late]);
  } catch (error) {
    result.raised = true;
    result.error = text(error);
  }
  clearTimeout(timer);
  return result;
}

process.on("unhandledRejection", () => {}); // some SDKs reject a second promise that nobody asked for
process.env.AI_SDK_LOG_WARNINGS = "false";
let input = "";
for await (const piece of process.stdin) input += piece;
const results = [];
for (const job of JSON.parse(input)) {
  if (!sdks[job.sdk]) throw new Error(`no SDK is named ${job.sdk}`);
  results.push(await run(job));
}
process.stdout.write(JSON.stringify(results), () => process.exit(0));
