// Answers at once, and again when a timer is due, for as long as it runs.
'use strict';
const net = require('net');

const server = net.createServer((socket) => {
  socket.on('data', () => {
    socket.write('for bytes\n');
    setTimeout(() => socket.write('for a timer\n'), 5);
  });
});
server.listen(0, '127.0.0.1', () => {
  const client = net.connect(server.address().port, '127.0.0.1', () => client.write('hello\n'));
  client.on('data', (data) => {
    if (data.includes('for a timer')) client.write('hello\n');
  });
});
