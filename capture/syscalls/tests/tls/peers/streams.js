// Asks itself over HTTP/2: one request before the connection is open, one before anything came on it, and when each is answered another;
// then on a new connection, for as long as it runs.
'use strict';
const http2 = require('http2');

const server = http2.createServer((request, response) => response.end('done'));
server.listen(0, '127.0.0.1', () => {
  const begin = () => {
    const session = http2.connect(`http://127.0.0.1:${server.address().port}`);
    session.on('close', begin);
    let open = 2;
    const ask = (number) => {
      const next = () => (number < 20 ? ask(number + 2) : --open || session.close());
      session.request({ ':path': `/${number}` }).on('end', next).resume();
    };
    ask(1);
    session.on('connect', () => setImmediate(ask, 2));
  };
  begin();
});
