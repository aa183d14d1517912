// The page in headless Chromium, over the real server and store: `npm run e2e`. Needs Debian's chromium (or CHROMIUM=path),
// the ClickHouse engine (`make setup`) and cargo. Screenshots go to e2e/screenshots.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const screenshots = join(here, "screenshots");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const missing = existsSync(executablePath) ? false : `needs ${executablePath}: install the Debian package chromium`;
if (missing && process.env.CI) throw new Error(missing);

let server;
let browser;
let url;

before(async () => {
  if (missing) return;
  mkdirSync(screenshots, { recursive: true });
  const cargo = ["run", "--quiet", "--package", "wirespan-analyzer", "--example", "page", "--", "127.0.0.1:0"];
  server = spawn("cargo", cargo, { cwd: join(here, "../../.."), stdio: ["pipe", "pipe", "inherit"] });
  url = await new Promise((resolve, reject) => {
    createInterface({ input: server.stdout }).once("line", resolve);
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
});

after(async () => {
  await browser?.close();
  if (server && server.exitCode === null) {
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.stdin.end();
    await ended;
  }
});

/** A page with the services on it, and what went wrong in it. */
async function open(options = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  page.setDefaultTimeout(15_000);
  const problems = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || problems.push(`asks ${request.url()}`));
  await page.goto(url);
  await page.getByRole("button", { name: "web:80", exact: true }).waitFor();
  await page.locator(".requests tbody tr").first().waitFor();
  return { page, problems };
}

test("services, map and requests are shown", { skip: missing }, async () => {
  const { page, problems } = await open();
  const services = page.locator(".services tbody tr");
  await page.waitForFunction(() => document.querySelectorAll(".services tbody tr").length === 4);
  const text = await services.filter({ hasText: "web:80" }).innerText();
  assert.match(text, /HTTP/);
  assert.match(text, /\/s/);
  assert.match(text, /%/);
  assert.match(text, /ms/);
  const names = await page.locator(".service-name button").allInnerTexts();
  assert.deepEqual([...names].sort(), ["cache:6379", "db:3306", "resolver:53", "web:80"]);

  const calls = await page.getByRole("list", { name: "Who calls whom" }).locator("li").allInnerTexts();
  assert.equal(calls.length, 4);
  for (const call of ["browser calls web", "web calls cache", "web calls db", "web calls resolver"]) {
    assert.ok(calls.some((c) => c.startsWith(call)), `${call} is missing in ${calls}`);
  }
  assert.equal(await page.locator(".chart canvas").count(), 2);
  assert.ok((await page.locator(".requests tbody tr").count()) > 20);
  await page.screenshot({ path: join(screenshots, "light.png") });
  assert.deepEqual(problems, []);
  await page.close();
});

test("requests are filtered by service, status and text", { skip: missing }, async () => {
  const { page, problems } = await open();
  const rows = page.locator(".requests tbody tr");
  const settled = (check, argument) => page.waitForFunction(check, argument);

  await page.getByRole("button", { name: "cache:6379", exact: true }).click();
  await settled(() => [...document.querySelectorAll(".requests tbody .peer:last-child")].every((c) => c.textContent === "cache:6379"));
  assert.equal(await page.getByLabel("Service", { exact: true }).inputValue(), "10.0.0.3:6379");
  await page.getByRole("button", { name: "cache:6379", exact: true }).click();

  await page.getByLabel("Status").selectOption("server_error");
  await settled(() => [...document.querySelectorAll(".requests tbody tr")].every((r) => r.dataset.status === "server_error"));
  assert.match(await rows.first().innerText(), /503/);
  await page.getByLabel("Status").selectOption("");

  await page.getByLabel("Text").fill("/cart");
  await settled(() => {
    const shown = [...document.querySelectorAll(".requests tbody .request")];
    return shown.length > 0 && shown.every((r) => r.textContent.includes("/cart"));
  });
  await page.getByLabel("Text").fill("no such request");
  await page.getByText("No request matches the filters").waitFor();
  assert.deepEqual(problems, []);

  await page.getByLabel("Text").fill("");
  await page.getByLabel("Service", { exact: true }).fill("nobody");
  await page.getByText("service=nobody is not known").waitFor();
  await page.close();
});

test("a request shows all its fields, by keyboard too", { skip: missing }, async () => {
  const { page, problems } = await open();
  await page.getByRole("button", { name: "Live" }).click();
  await page.locator(".requests .time button").first().focus();
  await page.keyboard.press("Enter");
  const detail = page.getByRole("dialog");
  await detail.waitFor();
  for (const field of ["start_ns", "client_ip", "server_port", "response_status", "request_bytes"]) {
    assert.equal(await detail.locator("dt", { hasText: new RegExp(`^${field}$`) }).count(), 1, field);
  }
  await page.screenshot({ path: join(screenshots, "detail.png") });
  await page.keyboard.press("Escape");
  await detail.waitFor({ state: "hidden" });

  await page.getByRole("button", { name: "p95" }).click();
  assert.equal(await page.locator("th[aria-sort=descending]").innerText(), "p95↓");
  assert.equal(await page.locator(".service-name button").first().innerText(), "web:80");
  assert.deepEqual(problems, []);
  await page.close();
});

test("a request shows its trace, and each request of it", { skip: missing }, async () => {
  const { page, problems } = await open();
  await page.getByRole("button", { name: "Live" }).click();
  await page.getByLabel("Protocol").selectOption("HTTP");
  await page.waitForFunction(() => [...document.querySelectorAll(".requests tbody .protocol")].every((c) => c.textContent === "HTTP"));
  await page.locator(".requests .time button").nth(10).click();
  const trace = page.getByRole("region", { name: "Trace" });
  await trace.waitFor();
  const lines = await trace.locator(".flame .head").allInnerTexts();
  assert.ok(lines.length >= 2, lines.join());
  assert.match(lines[0], /HTTP/);
  assert.ok(lines.slice(1).some((line) => /Redis/.test(line) && /turn 95 %/.test(line)), lines.join());
  await page.screenshot({ path: join(screenshots, "trace.png") });

  await trace.locator(".flame .head button").nth(1).click();
  await page.getByRole("dialog").locator("dd", { hasText: /^(Redis|DNS)$/ }).waitFor();
  assert.equal(await trace.locator(".flame .head").count(), lines.length, "the trace stays");
  assert.deepEqual(problems, []);
  await page.close();
});

test("numbers move while the page is live and stand still when it is paused", { skip: missing }, async () => {
  const { page, problems } = await open();
  const first = () => page.locator(".requests tbody .time button").first().innerText();
  const before = await first();
  await page.waitForFunction((old) => document.querySelector(".requests tbody .time button").textContent !== old, before);
  assert.deepEqual(problems, []);
  await page.close();
});

test("the page says when the server is gone", { skip: missing }, async () => {
  const { page } = await open();
  await page.route("**/api/**", (route) => route.abort());
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /does not answer/);
  assert.ok((await page.locator(".services tbody tr").count()) > 0, "the last answer stays");
  await page.close();
});

test("it fits a telephone, and is dark when the system is", { skip: missing }, async () => {
  for (const [name, options] of [
    ["narrow", { viewport: { width: 400, height: 860 } }],
    ["dark", { colorScheme: "dark" }],
  ]) {
    const { page, problems } = await open(options);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(overflow, 0, `${name} scrolls sideways by ${overflow} px`);
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), name === "dark" ? "dark" : "light");
    await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: name === "narrow" });
    assert.deepEqual(problems, []);
    await page.close();
  }
});
