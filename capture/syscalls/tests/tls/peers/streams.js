// Asks itself over HTTP/2: two requests at once, and when each is answered another, for as long as it runs.
'use strict';
const http2 = require('http2');

const server = http2.createServer((request, response) => response.end('done'));
server.listen(0, '127.0.0.1', () => {
  const session = http2.connect(`http://127.0.0.1:${server.address().port}`);
  const ask = (number) => {
    session.request({ ':path': `/${number}` }).on('end', () => ask(number + 1)).resume();
  };
  // Not before the connection is known by a frame of it.
  session.on('remoteSettings', () => [1, 2].forEach(ask));
});
