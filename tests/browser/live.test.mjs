import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { live, open, outbox, sell, url, watched, within } from "./browser.mjs";

let browser;
before(async () => (browser = await open()));
after(() => browser.close());

const rows = (kind) => `tbody[data-counts="${kind}"] tr`;

test("a sale shows up on a page that is open", async () => {
  const page = await watched(browser);
  await live(page, "/");
  assert.equal(await page.locator(rows("recorded")).count(), 0);
  await sell("--shop", "AMIS1");
  await within(2_000, "the sale", (timeout) => page.waitForSelector(rows("recorded"), { timeout }));
  assert.match(await page.locator(".shop", { hasText: "AMIS1" }).textContent(), /selling/);
  const before = await page.locator(rows("recorded")).count();
  await sell("--shop", "AMIS1", "--count", "5");
  await within(2_000, "five more", (timeout) =>
    page.waitForFunction(([rows, all]) => document.querySelectorAll(rows).length === all, [rows("recorded"), before + 5], {
      timeout,
    }),
  );
  page.fine();
});

test("a rejected sale shows up within two seconds, and so does the manager's text message", async () => {
  const [page, phone] = [await watched(browser), await watched(browser)];
  await live(page, "/");
  await live(phone, "/incidents");
  await sell("--shop", "AMIS1", "--key-of", "AMIS2");
  await within(2_000, "the rejected sale", (timeout) => page.waitForSelector(rows("rejected"), { timeout }));
  assert.match(await page.locator(rows("rejected")).first().textContent(), /wrong-key/);
  let sent = [];
  while (!sent.some((notice) => notice.channel === "sms")) sent = await outbox();
  await within(2_000, "the text message", (timeout) => phone.waitForSelector(".phone .bubble", { timeout }));
  const { to, text } = sent.find((notice) => notice.channel === "sms");
  assert.equal(await phone.locator(".phone h3").textContent(), to);
  assert.equal(await phone.locator(".phone .bubble").textContent(), text);
  await within(2_000, "the incident", (timeout) => page.waitForSelector(".banner.bad", { timeout }));
  page.fine();
  phone.fine();
});

test("what changes leaves focus, what was unfolded and what was typed alone", async () => {
  const page = await watched(browser);
  await live(page, "/incidents");
  await page.locator(".mails summary").first().click();
  await page.locator(".mails pre").first().focus();
  const typing = await watched(browser);
  await live(typing, "/sales");
  await typing.fill("#id", "half an id");
  const first = await typing.locator(rows("recorded")).first().getAttribute("data-key");
  await sell("--shop", "AMIS1");
  await typing.waitForFunction(
    ([rows, first]) => document.querySelector(rows).dataset.key !== first,
    [rows("recorded"), first],
  );
  assert.equal(await typing.inputValue("#id"), "half an id");
  assert.equal(await typing.evaluate(() => document.activeElement.id), "id");
  assert.equal(await page.evaluate(() => document.activeElement.nodeName), "PRE");
  assert.ok(await page.locator(".mails details").first().evaluate((details) => details.open));
  page.fine();
  typing.fine();
});

test("a page that is paused stays as it is until it is resumed", async () => {
  const [paused, other] = [await watched(browser), await watched(browser)];
  await live(paused, "/");
  await live(other, "/");
  await paused.click("#pause");
  assert.equal(await paused.locator("#connection").textContent(), "Paused");
  const first = (page) => page.locator(rows("recorded")).first().getAttribute("data-key");
  const before = await first(paused);
  await sell("--shop", "AMIS2");
  await other.waitForFunction(([rows, before]) => document.querySelector(rows).dataset.key !== before, [
    rows("recorded"),
    before,
  ]);
  assert.equal(await first(paused), before);
  await paused.click("#pause");
  await paused.waitForFunction(([rows, key]) => document.querySelector(rows).dataset.key === key, [
    rows("recorded"),
    await first(other),
  ]);
  paused.fine();
  other.fine();
});

test("a page that is refused, as after the shop was opened again with another token, says that it may be old", async () => {
  const page = await watched(browser);
  await live(page, "/");
  await page.route(`${url}/`, (route) => route.fulfill({ status: 401, contentType: "text/html", body: "<main>No.</main>" }));
  await sell("--shop", "AMIS1");
  const says = (words) => page.waitForFunction((words) => document.querySelector("#connection").textContent.startsWith(words), words);
  await says("Not connected");
  assert.ok(await page.locator(".shop").count(), "what was seen last is still there");
  await page.unroute(`${url}/`);
  await sell("--shop", "AMIS1");
  await says("Live");
});

test("what is new is said to screen readers, in few words", async () => {
  const page = await watched(browser);
  await live(page, "/");
  await sell("--shop", "AMIS1", "--count", "3");
  await page.waitForFunction(() => /^\d+ recorded/.test(document.querySelector("#news").textContent));
  assert.equal(await page.locator("#news").getAttribute("aria-live"), "polite");
  page.fine();
});
