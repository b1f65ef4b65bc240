// A browser and a shop, as tests have them.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { executable, folder } from "./install.mjs";

/** The shop that the test's other half opened. */
export const { KASSA_URL: url, KASSA_COMMAND: kassa, KASSA_SHOPS: shops, KASSA_DATA: data, SHOTS: shots } = process.env;

const run = promisify(execFile);

/** Sells. What the shop took and rejected is no success to a till, and what some tests are about. */
export async function sell(...args) {
  const sold = run(kassa, ["sell", "--url", url, "--shops", shops, "--folder", join(data, "till"), ...args]);
  await sold.catch((error) => {
    if (!error.stdout?.includes("rejected as")) throw error;
  });
}

export async function outbox() {
  const { stdout } = await run(kassa, ["outbox", "--data", data, "--json"]);
  return stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

/** The libraries come along for machines that lack them; where there are some, those are used. */
function environment() {
  const env = { ...process.env, FONTCONFIG_FILE: join(folder, "fonts.conf") };
  const linked = execFileSync("ldd", [executable], { encoding: "utf8" });
  return linked.includes("not found") ? { ...env, LD_LIBRARY_PATH: join(folder, "al2023", "lib") } : env;
}

/** A browser that can reach nothing but this machine. */
export async function open() {
  return chromium.launch({
    executablePath: executable,
    env: environment(),
    args: ["--headless=shell", "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
  });
}

/** A page that remembers what went wrong in it, and what it asked of whom. */
export async function watched(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on("console", (said) => {
    if (["error", "warning"].includes(said.type())) page.wrong.push(said.text());
  });
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("dialog", (dialog) => page.wrong.push(`a dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`)) page.wrong.push(`asked elsewhere: ${request.url()}`);
  });
  page.fine = () => assert.deepEqual(page.wrong, []);
  return page;
}

/** Goes there and waits until the page is connected. */
export async function live(page, path) {
  await page.goto(url + path);
  await page.waitForFunction(() => !document.querySelector("#live").hidden);
}

/** How many milliseconds it takes until what is looked for is there, which it must be within `most`. */
export async function within(most, what, looked) {
  const begun = performance.now();
  try {
    await looked(most);
  } catch (error) {
    assert.fail(`${what}: not within ${most} ms (${error.message.split("\n")[0]})`);
  }
  const took = Math.round(performance.now() - begun);
  console.log(`${what}: after ${took} ms`);
  return took;
}

export async function shot(page, name) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
}
