// A page of the format web in headless Chromium: loads it, types a query, reads hits and vectors.
import fs from "node:fs";
import { chromium } from "playwright-core";

const [address, executablePath, file, out] = process.argv.slice(2);
const { query, texts, folder } = JSON.parse(fs.readFileSync(file));
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
const found = { version: browser.version(), requests: [], problems: [], first_hits_ms: [], ready_ms: [] };

async function opened(options) {
  const page = await browser.newPage(options);
  page.on("request", (request) => found.requests.push(request.url()));
  page.on("requestfailed", (request) => found.problems.push(request.url()));
  page.on("pageerror", (error) => found.problems.push(String(error)));
  page.on("console", (line) => {
    if (["error", "warning"].includes(line.type())) found.problems.push(line.text());
  });
  await page.addInitScript(() => {  // by the clock of the page, which starts as it is opened
    window.seen = {};
    const note = () => {
      if (document.querySelector("#hits li")) window.seen.hits ??= performance.now();
      if (document.querySelector("#about dl")) window.seen.ready ??= performance.now();
    };
    new MutationObserver(note).observe(document, { childList: true, subtree: true });
  });
  await page.goto(address, { waitUntil: "commit" });
  await page.waitForFunction(() => window.seen.ready, null, { timeout: 60_000 });
  const seen = await page.evaluate(() => window.seen);
  found.first_hits_ms.push(seen.hits);
  found.ready_ms.push(seen.ready);
  return page;
}

const hits = (page) => page.locator("#hits li").evaluateAll((items) => items.map((item) =>
  [".text", ".language", ".score"].map((part) => item.querySelector(part)?.textContent)));

const page = await opened({ viewport: { width: 900, height: 1000 }, colorScheme: "light" });
const told = () => page.locator("#status").textContent();
await page.locator("label[for=query]").click(); // which puts the cursor into the field
await page.keyboard.press("ControlOrMeta+A");
await page.keyboard.press("Backspace");
await page.keyboard.press("Enter");
await page.waitForFunction(() => !document.querySelector("#hits li"));
found.empty = await told();
await page.keyboard.type(query);
await page.keyboard.press("Enter");
await page.waitForSelector("#hits li");
found.hits = await hits(page);
found.status = await told();
await page.screenshot({ path: `${out}-light.png` });
if (await page.locator("#language").isVisible()) {
  found.language = await page.locator("#language option").last().textContent();
  await page.selectOption("#language", { label: found.language });
  await page.waitForFunction((name) =>
    [...document.querySelectorAll(".language")].every((item) => item.textContent === name), found.language);
  found.in_language = await hits(page);
}
found.vectors = await page.evaluate(async (texts) => {
  const { encode } = await import("./search.js"); // the one that the page has loaded
  const rows = [];
  for (const text of texts) rows.push([...(await encode(text))]);
  return rows;
}, [query, ...texts]);
found.median_ms = await page.evaluate(async (text) => {
  const { encode, search } = await import("./search.js");
  const times = { encode: [], search: [] };
  for (let i = 0; i < 51; i++) {
    const begin = performance.now();
    const vector = await encode(text);
    const middle = performance.now();
    search(vector);
    times.encode.push(middle - begin);
    times.search.push(performance.now() - middle);
  }
  return Object.fromEntries(Object.entries(times).map(([name, all]) => [name, all.sort((a, b) => a - b)[25]]));
}, query);
const phone = await opened({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
found.phone_width = await phone.evaluate(() => document.documentElement.scrollWidth);
await phone.screenshot({ path: `${out}-phone.png` });
await opened({});
const file_page = await browser.newPage();
await file_page.goto(`file://${folder}/index.html`);
await file_page.waitForFunction(() => getComputedStyle(document.getElementById("serve")).visibility === "visible");
found.as_file = await file_page.locator("#serve").textContent();
await browser.close();
fs.writeFileSync(out, JSON.stringify(found));
