import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, sell, url, watched } from "./browser.mjs";

let browser;
before(async () => {
  browser = await open();
  await sell("--shop", "AMIS1", "--count", "20");
  await sell("--shop", "AMIS1", "--key-of", "AMIS2");
});
after(() => browser.close());

test("without JavaScript everything can be read and found", async () => {
  const page = await watched(browser, { javaScriptEnabled: false });
  await page.goto(url);
  assert.equal(await page.locator(".shop").count(), 2);
  assert.equal(await page.locator('tbody[data-counts="recorded"] tr').count(), 12);
  assert.equal(await page.locator('tbody[data-counts="rejected"] tr').count(), 1);
  assert.ok(!(await page.locator("#live").isVisible()), "nothing is live");

  const id = await page.locator('tbody[data-counts="recorded"] a.id').first().getAttribute("title");
  await page.click("nav >> text=Sales");
  await page.fill("#id", id);
  await page.click("button >> text=Find");
  assert.equal(await page.locator("h1 .id").textContent(), id);
  assert.deepEqual(await page.locator(".waterfall tbody th").allTextContents(), ["accepted", "decrypted", "recorded"]);
  assert.match(await page.locator(".waterfall tbody").textContent(), /\+[\d.]+ (µs|ms|s)/);

  await page.goto(`${url}/sales`);
  await page.selectOption("#shop", "AMIS2");
  await page.click("button >> text=Find");
  assert.deepEqual(await page.locator(".feed .empty").allTextContents(), Array(2).fill("None of the latest 100 is of AMIS2."));
  assert.equal(await page.locator(".zone").textContent(), "Times are those of Europe/Amsterdam.");

  await page.goto(`${url}/stock`);
  await page.fill("#q", "stroop");
  await page.click("button >> text=Search");
  assert.equal(await page.locator(".count").textContent(), "1 item");
  assert.match(await page.locator("tbody tr").first().textContent(), /Stroopwafels/);

  await page.goto(`${url}/dashboards/operations`);
  await page.click('nav[aria-label="Time shown"] >> text=1h');
  assert.match(page.url(), /span=1h$/);
  assert.equal(await page.locator('nav[aria-label="Time shown"] [aria-current]').textContent(), "1h");
  assert.ok((await page.locator("svg.chart").count()) > 10, "charts are drawn");
  await page.locator(".values summary").first().click();
  assert.ok(await page.locator(".values table").first().isVisible(), "a chart's values unfold");
  page.fine();
});

test("a sale that there is not, and a shop that there is not, are told in words", async () => {
  const page = await watched(browser);
  for (const [path, says] of [
    ["/sales?id=019394e8-6c00-7000-8000-000000000001", /no shop has a sale/],
    ["/sales?id=nonsense", /not a sale's id/],
    ["/sales/AMIS1/019394e8-6c00-7000-8000-000000000001", /no shop has a sale/],
    ["/stock/NOWHERE", /there is no shop NOWHERE; there are: AMIS1, AMIS2/],
    ["/dashboards/nothing", /there are: sales, operations, keys/],
  ]) {
    const response = await page.goto(url + path);
    assert.equal(response.status(), 404, path);
    assert.match(await page.locator(".unavailable").textContent(), says);
  }
});

test("with the keyboard alone, the content is one step away", async () => {
  const page = await watched(browser);
  await page.goto(url);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "one sees where one is");
  page.fine();
});
