// Transformers.js: the pipeline that its users take, from a local folder.
import fs from "node:fs";
import { env, pipeline } from "@huggingface/transformers";

const [data, dtype, out] = process.argv.slice(2);
const folder = dtype === "q4" ? "onnx_q4" : "portable";
env.allowRemoteModels = false;
env.localModelPath = data;
const texts = Object.values(JSON.parse(fs.readFileSync(`${data}/texts.json`)));
const encode = await pipeline("feature-extraction", folder, { dtype });
const options = { pooling: "mean", normalize: true };
const vectors = [];
for (let i = 0; i < texts.length; i += 8) {
  vectors.push(...(await encode(texts.slice(i, i + 8), options)).tolist());
}
fs.writeFileSync(out, JSON.stringify({ version: env.version, vectors }));
