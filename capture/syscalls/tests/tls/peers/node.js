// HTTPS of Node.js: node.js server PORT, or node.js client PORT PATH
const [, , role, port, path] = process.argv;
const https = require("https");
const fs = require("fs");
const answer = "answer-of-node";

if (role === "server") {
  const options = { cert: fs.readFileSync("cert.pem"), key: fs.readFileSync("key.pem") };
  https
    .createServer(options, (request, response) => {
      response.setHeader("Content-Length", answer.length);
      response.end(answer);
    })
    .listen(Number(port), "127.0.0.1");
} else {
  https.get({ host: "127.0.0.1", port: Number(port), path, rejectUnauthorized: false }, (response) => {
    response.on("data", (data) => process.stdout.write(data));
  });
}
