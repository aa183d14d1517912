// A service of the suite `accuracy`: service.js STYLE PORT LOG [NAME=URL]...; see service.py for what paths mean.
// STYLE is http1, https or http2 (without TLS). URLs are http:, https:, h2: and redis:.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');
const net = require('net');

const [style, port, logFile, ...targets] = process.argv.slice(2);
const log = fs.openSync(logFile, 'a');
const tls = {
  ca: fs.readFileSync(process.env.CERTIFICATE),
  cert: fs.readFileSync(process.env.CERTIFICATE),
  key: fs.readFileSync(process.env.KEY),
};
const version = process.env.TLS && { minVersion: `TLSv${process.env.TLS}`, maxVersion: `TLSv${process.env.TLS}` };

function note(what, id, parent = '-') {
  fs.writeSync(log, `${what} ${id} ${parent} ${process.pid} ${process.pid} ${process.hrtime.bigint()}\n`);
}

// Each makes a function (path, headers) => promise that does one call.
const clients = {
  'http:': (url) => overHttp(http, url, new http.Agent({ keepAlive: true })),
  'https:': (url) => overHttp(https, url, new https.Agent({ keepAlive: true, ca: tls.ca })),
  'h2:': (url) => {
    const session = http2.connect(`http://${url.host}`);
    return (id, path, headers) => new Promise((resolve, reject) => {
      session.request({ ':path': path, ...headers }).on('end', resolve).on('error', reject).resume();
    });
  },
  // All commands on one connection, sent as they come and answered in order.
  'redis:': (url) => {
    const waiting = [];
    let rest = '';
    const socket = net.connect(url.port, url.hostname).setNoDelay().on('data', (data) => {
      const lines = (rest + data).split('\r\n');
      rest = lines.pop();
      for (const _ of lines) waiting.shift()();
    });
    return (id) => new Promise((resolve) => {
      const key = `k:${id}`;
      waiting.push(resolve);
      socket.write(`*2\r\n$3\r\nGET\r\n$${key.length}\r\n${key}\r\n`);
    });
  },
};

function overHttp(module, url, agent) {
  return (id, path, headers) => new Promise((resolve, reject) => {
    module.get({ host: url.hostname, port: url.port, path, headers, agent }, (response) => {
      response.on('end', resolve).resume();
    }).on('error', reject);
  });
}

const calls = Object.fromEntries(targets.map((target) => {
  const [name, address] = target.split('=');
  const url = new URL(address);
  return [name, clients[url.protocol](url)];
}));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Calls that are made for no request, on the same connections.
let ticking;
function tick(target, tag) {
  let number = 0;
  ticking ??= setInterval(() => {
    const id = `${tag}-${1e6 + number++}`;
    note('called', id);
    calls[target](id, `/leaf/${id}`, {});
  }, 1);
}

const modes = {
  leaf: async () => {},
  nap: async (call, ids) => pause(Math.random() * ids.length),
  seq: async (call, ids) => {
    for (const id of ids) await call(id);
  },
  beside: async (call, ids, target) => {
    tick(target, ids[0].split('-')[0]);
    for (const id of ids) await call(id);
  },
  all: async (call, ids) => Promise.all(ids.map(call)),
  // As many as the request's number says.
  some: async (call, ids) => Promise.all(ids.slice(0, Number(ids[0].match(/-(\d+)/)[1]) * 7 % (ids.length + 1)).map(call)),
  later: async (call, ids) => {
    for (const id of ids) {
      await pause(2);
      await call(id);
    }
  },
};

async function serve(request, response) {
  const [hop, ...rest] = request.url.slice(1).split('/');
  const own = rest.pop();
  const [mode, count = 0, target] = hop.split('.');
  const trace = request.headers.traceparent?.split('-')[1];
  note('served', own);
  const call = (id) => {
    note('called', id, own);
    const headers = { 'x-oracle-id': id };
    if (trace) headers.traceparent = `00-${trace}-${crypto.randomBytes(8).toString('hex')}-01`;
    return calls[target](id, `/${[...rest, id].join('/')}`, headers);
  };
  await modes[mode](call, Array.from({ length: count }, (_, k) => `${own}.${k + 1}`), target);
  response.end(`done ${own}\n`);
}

const servers = {
  http1: () => http.createServer({ keepAliveTimeout: 60000 }, serve),
  https: () => https.createServer({ ...tls, ...version, keepAliveTimeout: 60000 }, serve),
  http2: () => http2.createServer(serve),
};
servers[style]().listen({ port, host: process.env.LISTEN, backlog: 256 });
