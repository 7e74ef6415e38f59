// llama.cpp through node-llama-cpp, whose package brings it built.
import fs from "node:fs";
import { getLlama } from "node-llama-cpp";

const [data, file, out] = process.argv.slice(2);
const texts = Object.values(JSON.parse(fs.readFileSync(`${data}/texts.json`)));
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true });
const model = await llama.loadModel({ modelPath: `${data}/${file}` });
const context = await model.createEmbeddingContext({ contextSize: 64, batchSize: 64 });
const vectors = [];
for (const text of texts) {
  try {
    vectors.push([...(await context.getEmbeddingFor(text)).vector]);
  } catch (error) {
    vectors.push(String(error));
  }
}
const folder = new URL("node_modules/node-llama-cpp/", import.meta.url);
const read = (name) => JSON.parse(fs.readFileSync(new URL(name, folder)));
const version = `node-llama-cpp ${read("package.json").version}`;
fs.writeFileSync(out, JSON.stringify({ version, vectors }));
process.exit(0);
