// Calls a semel server with the clients that people use in Node, and prints what each returned as JSON.
//   node clients.mjs http://127.0.0.1:8700

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import { Ollama } from "ollama";
import OpenAI, { toFile } from "openai";

const url = process.argv[2];
const TEXTS = ["the first one", "the second one", "the first one"];

const runs = {
  async openai() {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
    const { data, usage } = await client.embeddings.create({ model: "fake", input: TEXTS });
    return { vectors: data.map((each) => each.embedding), tokens: usage.total_tokens };
  },

  async openaiError() {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
    const error = await client.embeddings.create({ model: "nope", input: "x" }).catch((failed) => failed);
    return { status: error.status, code: error.code, message: error.message };
  },

  async openaiKeptConnection() {
    // one connection, idle for longer than most servers keep it: a request on it must not fail
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
    for (const pause of [0, 6500]) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      await client.models.list();
    }
    return true;
  },

  async openaiBatch() {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
    const line = { custom_id: "a", method: "POST", url: "/v1/embeddings", body: { model: "fake", input: TEXTS } };
    const file = await client.files.create({ file: await toFile(Buffer.from(JSON.stringify(line)), "in.jsonl"), purpose: "batch" });
    let batch = await client.batches.create({ input_file_id: file.id, endpoint: "/v1/embeddings", completion_window: "24h" });
    for (let tries = 0; tries < 600 && batch.status !== "completed"; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      batch = await client.batches.retrieve(batch.id);
    }
    const text = await (await client.files.content(batch.output_file_id)).text();
    return JSON.parse(text).response.body.data.map((each) => each.embedding);
  },

  async cohere() {
    const client = new CohereClientV2({ token: "any", environment: url });
    const { embeddings } = await client.embed({ model: "fake", texts: TEXTS, inputType: "classification", embeddingTypes: ["float"] });
    const { results } = await client.rerank({ model: "reranker", query: "a b", documents: ["c", "b a"], topN: 1 });
    return { vectors: embeddings.float, best: results[0] };
  },

  async cohereV1() {
    const client = new CohereClient({ token: "any", environment: url });
    const { embeddings } = await client.embed({ model: "fake", texts: TEXTS, inputType: "classification" });
    return embeddings;
  },

  async ollama() {
    const client = new Ollama({ host: url });
    const { embeddings } = await client.embed({ model: "fake", input: TEXTS });
    const { models } = await client.list();
    return { vectors: embeddings, models: models.map((model) => model.name) };
  },

  async ai() {
    const compatible = createOpenAICompatible({ name: "semel", baseURL: `${url}/v1`, apiKey: "any" });
    const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "any" });
    const many = await embedMany({ model: compatible.textEmbeddingModel("fake"), values: TEXTS });
    const one = await embed({ model: openai.embedding("fake"), value: TEXTS[0] });
    return { vectors: many.embeddings, one: one.embedding, tokens: many.usage.tokens };
  },
};

const found = {};
for (const [name, run] of Object.entries(runs)) {
  found[name] = await run().catch((error) => ({ failed: String(error?.stack ?? error) }));
}
console.log(JSON.stringify(found));
