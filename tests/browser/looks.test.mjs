import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { live, open, outbox, sell, shot, url, watched } from "./browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
const pages = {
  overview: "/",
  sales: "/sales",
  "sales-not-found": "/sales?id=nonsense",
  stock: "/stock/AMIS1",
  incidents: "/incidents",
  alarms: "/alarms",
  "dashboard-sales": "/dashboards/sales",
  "dashboard-operations": "/dashboards/operations?span=1h",
  "dashboard-keys": "/dashboards/keys?span=1h",
};

before(async () => {
  browser = await open();
  await sell("--shop", "AMIS1", "--count", "60");
  await sell("--shop", "AMIS2", "--count", "5", "--till", "the till with a very long name at the end of the hall");
  await sell("--shop", "AMIS1", "--key-of", "AMIS2", "--count", "3");
  while (!(await outbox()).some((notice) => notice.channel === "sms")) {}
  const page = await watched(browser);
  await page.goto(`${url}/sales`);
  const first = (kind) => page.locator(`tbody[data-counts="${kind}"] a`).first().getAttribute("href");
  pages.sale = await first("recorded");
  pages["sale-rejected"] = await first("rejected");
});
after(() => browser.close());

/** What is folded is looked at as well. */
const unfold = (page, open) =>
  page.evaluate((open) => document.querySelectorAll("main details").forEach((details) => (details.open = open)), open);

for (const [width, height] of [[1280, 900], [360, 780]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`every page is accessible and fits, ${width} pixels wide and ${colorScheme}`, async () => {
      const page = await watched(browser, { viewport: { width, height }, colorScheme });
      for (const [name, path] of Object.entries(pages)) {
        await live(page, path);
        await unfold(page, true);
        // Given to the browser by its own debugger: the page's policy lets no other script in.
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
        const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        const told = grave.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 150)).join(" | ")}`);
        assert.deepEqual(told, [], `${name}, ${width}, ${colorScheme}`);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(over <= 0, `${name} is ${over} pixels wider than ${width}`);
        await unfold(page, false);
        await shot(page, `${name}-${width}-${colorScheme}`);
      }
      assert.deepEqual(page.wrong.filter((said) => !said.includes("404")), []);
    });
  }
}
