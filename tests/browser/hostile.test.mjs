import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { live, open, outbox, sell, url, watched } from "./browser.mjs";

let browser;
before(async () => (browser = await open()));
after(() => browser.close());

const TILL = "<img src=x onerror=alert(1)>\u202Etxt.exe";

test("hostile names are shown as the text they are, on every page", async () => {
  await sell("--shop", "EVIL", "--till", TILL, "--count", "3");
  await sell("--shop", "EVIL", "--key-of", "AMIS1");
  while (!(await outbox()).some((notice) => notice.channel === "sms")) {}
  const page = await watched(browser);
  await live(page, "/");
  const sale = await page.locator('tbody[data-counts="recorded"] a').first().getAttribute("href");
  for (const path of ["/", "/sales", "/stock/EVIL", "/incidents", "/alarms", "/dashboards/sales", sale, `/stock/EVIL?q=%22><script>alert(2)</script>`]) {
    await live(page, path);
    const made = await page.evaluate(() => ({
      scripts: document.querySelectorAll("main script, main img, main iframe, main b").length,
      turned: /[\u202a-\u202e\u2066-\u2069\u0000-\u0008]/.test(document.body.textContent),
    }));
    assert.deepEqual(made, { scripts: 0, turned: false }, path);
  }
  await live(page, "/");
  const card = await page.locator(".shop", { hasText: "EVIL" }).locator("h3").textContent();
  assert.equal(card, `<script>alert("shop")</script> U+202Egnp.exe EVIL`);
  assert.equal(await page.locator("td.till").first().textContent(), "<img src=x onerror=alert(1)>U+202Etxt.exe");
  await live(page, "/stock/EVIL");
  assert.match(await page.locator("main").textContent(), /<b>"bold"<\/b> & <\/td>/);
  await live(page, `/stock/EVIL?q=${encodeURIComponent(`"><script>alert(2)</script>`)}`);
  assert.equal(await page.inputValue("#q"), `"><script>alert(2)</script>`);
  page.fine();
});
