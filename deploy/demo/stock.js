// The demo's stock service: asks the goods service over TLS, several times where one answer does not do.

const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const agent = new https.Agent({ keepAlive: true, ca: fs.readFileSync(process.argv[2]) });

/** Status and JSON of the goods service. */
function goods(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = https.request({ host: "goods.demo", port: 8443, method, path, agent }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve([response.statusCode, JSON.parse(Buffer.concat(parts))]));
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function item(number) {
  const [status, found] = await goods("GET", `/goods/${number}`);
  if (status !== 200) return [status, found];
  const [, left] = await goods("GET", `/left/${number}`);
  return [200, { ...found, stock: left.stock }];
}

async function answer(request, body) {
  const path = request.url;
  if (request.method === "GET" && path.startsWith("/items/")) return item(encodeURIComponent(path.slice(7)));
  if (path.startsWith("/items?")) return goods("GET", path.replace("items", "goods"));
  return goods(request.method, path, body);
}

http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const [status, text] = await answer(request, Buffer.concat(parts)).catch((error) => [502, { error: error.message }]);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(text));
}).listen(8001);
