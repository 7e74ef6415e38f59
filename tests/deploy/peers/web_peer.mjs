// onnxruntime-web: the WebAssembly that browsers run, here in Node; the tokenizer is Transformers.js'.
import fs from "node:fs";
import { AutoTokenizer, env } from "@huggingface/transformers";
import * as ort from "onnxruntime-web";

const [data, file, out] = process.argv.slice(2);
const folder = file.includes("q4") ? "onnx_q4" : "portable";
env.allowRemoteModels = false;
env.localModelPath = data;
ort.env.wasm.numThreads = 1;
const texts = Object.values(JSON.parse(fs.readFileSync(`${data}/texts.json`)));
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const graph = new Uint8Array(fs.readFileSync(`${data}/${folder}/${file}`));
const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
const vectors = [];
for (let i = 0; i < texts.length; i += 8) {
  const batch = tokenizer(texts.slice(i, i + 8), { padding: true, truncation: true });
  const inputs = {};
  for (const name of session.inputNames) {
    inputs[name] = new ort.Tensor("int64", batch[name].data, batch[name].dims);
  }
  const { sentence_embedding: rows } = await session.run(inputs, ["sentence_embedding"]);
  const [count, width] = rows.dims;
  for (let j = 0; j < count; j++) vectors.push([...rows.data.slice(j * width, (j + 1) * width)]);
}
fs.writeFileSync(out, JSON.stringify({ version: ort.env.versions.web, vectors }));
