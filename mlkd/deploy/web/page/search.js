// Search across languages: the query is encoded here, the texts were when the folder was written.
import * as ort from "./runtime/onnxruntime.js";
import { Tokenizer } from "./runtime/tokenizers.js";

const SHOWN = 10;
const PAUSE = 120; // ms without a key before a query that is being typed is searched
const at = (id) => document.getElementById(id);
const [query, language, hits, progress, state] =
  ["query", "language", "hits", "progress", "status"].map(at);
const names = new Intl.DisplayNames(["en"], { type: "language" });
const number = (value) => value.toLocaleString("en");

let index, tokenizer, session, vectors, lengths, width;

/** A file of the folder, whose bytes move the bar forward. */
async function load(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  const parts = [];
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    progress.value += value.length;
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const parse = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** The texts and their vectors; those of the examples come last. */
async function open() {
  index = await (await fetch("search.json")).json();
  progress.max = Object.values(index.bytes).reduce((sum, size) => sum + size, 0);
  progress.hidden = false;
  vectors = new Int8Array((await load("vectors.bin")).buffer);
  const rows = index.texts.length + index.examples.length;
  width = vectors.length / rows;
  const length = (_, row) => Math.sqrt(stored(row).reduce((sum, x) => sum + x * x, 0)) || 1;
  lengths = Float32Array.from({ length: rows }, length);
}

const stored = (row) => vectors.subarray(row * width, (row + 1) * width);

/** What encodes a query. */
async function start() {
  const [wasm, graph, pieces, about] = await Promise.all(
    ["runtime/onnxruntime.wasm", index.graph, "tokenizer.json", "tokenizer_config.json"].map(load));
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  ort.env.wasm.wasmBinary = wasm;
  tokenizer = new Tokenizer(parse(pieces), parse(about));
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" };
  session = await ort.InferenceSession.create(graph, options); // the graph is written as it runs best
}

/** The vector of a text, at length 1; a text that is too long is cut. */
export async function encode(text) {
  const ids = tokenizer.encode(text).ids.slice(0, index.longest); // the graph puts the end token
  const row = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
  const inputs = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)) };
  return (await session.run(inputs, ["sentence_embedding"])).sentence_embedding.data;
}

/** The nearest texts: [cosine, row], the nearest first. */
export function search(vector, wanted = "") {
  const only = wanted && index.languages.indexOf(wanted);
  const found = [];
  for (let row = 0; row < index.texts.length; row++) {
    if (wanted && index.language[row] !== only) continue;
    let sum = 0;
    for (let i = 0, j = row * width; i < width; i++, j++) sum += vector[i] * vectors[j];
    found.push([sum / lengths[row], row]);
  }
  return found.sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
}

function element(tag, content, more = {}) {
  const made = Object.assign(document.createElement(tag), more);
  made.append(...[content].flat());
  return made;
}

function hit([cosine, row]) {
  const code = index.languages[index.language[row]];
  const score = element("span", cosine.toFixed(2), { className: "score", title: "cosine" });
  score.style.setProperty("--part", Math.max(0, cosine));
  const text = element("span", index.texts[row], { className: "text", lang: code, dir: "auto" });
  const name = code ? [element("span", names.of(code), { className: "language" })] : [];
  return element("li", [score, element("div", [text, ...name])]);
}

/** Show the hits of a vector; the time of the search in ms. */
function show(vector) {
  const begin = performance.now();
  const found = search(vector, language.value);
  const time = performance.now() - begin;
  hits.replaceChildren(...found.map(hit));
  return time;
}

let newest = 0;

/** Search for what is in the field, unless something newer is there by then. */
async function answer() {
  const turn = ++newest;
  if (!session) return;
  const count = number(index.texts.length);
  if (!query.value.trim()) {
    hits.replaceChildren();
    state.textContent = `Type a sentence to search ${count} texts.`;
    return;
  }
  const begin = performance.now();
  const vector = await encode(query.value);
  const encoding = performance.now() - begin;
  if (turn !== newest) return;
  const searching = show(vector);
  state.textContent = `${hits.children.length} of ${count} texts. ` +
    `Encoded in ${encoding.toFixed(1)} ms, searched in ${searching.toFixed(1)} ms.`;
}

function offer() {
  for (const { text, language: code } of index.examples) {
    const button = element("button", text, { type: "button", lang: code });
    button.onclick = () => { query.value = text; query.focus(); answer(); };
    at("examples").append(button);
  }
  at("examples").hidden = false;
  const known = index.languages.filter(Boolean);
  language.append(...known.map((code) => element("option", names.of(code), { value: code })));
  at("choice").hidden = known.length < 2;
  const facts = {
    model: `${index.model}, ${index.weights === "q4" ? "4 bits" : "int8"}`,
    texts: number(index.texts.length),
    languages: known.map((code) => names.of(code)).join(", "),
    loaded: `in ${(performance.now() / 1000).toFixed(1)} s, ${(progress.max / 2 ** 20).toFixed(1)} MiB`,
    runtime: Object.entries(index.runtime).map((part) => part.join(" ")).join(", "),
  };
  const shown = Object.entries(facts).filter(([, value]) => value);
  const rows = shown.map(([name, value]) => [element("dt", name), element("dd", value)]);
  at("about").append(element("dl", rows.flat()));
  at("about").hidden = false;
}

let pause;
query.oninput = () => { clearTimeout(pause); pause = setTimeout(answer, PAUSE); };
language.onchange = answer;
document.forms[0].onsubmit = (event) => { event.preventDefault(); clearTimeout(pause); answer(); };

at("serve").remove();
state.textContent = "Loading …";
try {
  await open();
  if (!query.value) { // hits before the model is there: the vector of an example is stored
    query.value = index.examples[0].text;
    const row = index.texts.length;
    show(Array.from(stored(row), (value) => value / lengths[row]));
    state.textContent = "An example. The model is loading …";
  }
  await start();
  await answer();
  offer();
} catch (error) {
  state.textContent = `The page cannot be loaded: ${error.message}`;
}
progress.hidden = true;
