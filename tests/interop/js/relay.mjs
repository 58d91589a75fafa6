// WebSocket in front of a reference broker that has none: each connection's bytes go to its TCP listener.

import { readFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createRequire } from 'node:module';
import { connect } from 'node:net';

const require = createRequire(`${process.env.INTEROP_MODULES}/`);
const { WebSocketServer, createWebSocketStream } = require('ws');
const { ws, wss, tcp, certs } = JSON.parse(process.env.INTEROP_RELAY);

function serve(http, port) {
  new WebSocketServer({ server: http, handleProtocols: () => 'mqtt' }).on('connection', (socket) => {
    const client = createWebSocketStream(socket);
    const broker = connect({ port: tcp, host: '127.0.0.1', noDelay: true });
    client.on('error', () => broker.destroy());
    broker.on('error', () => client.destroy());
    client.on('close', () => broker.destroy());
    broker.on('close', () => socket.close());
    client.pipe(broker);
    broker.pipe(client);
  });
  http.listen(port, '127.0.0.1');
}

serve(createHttp(), ws);
serve(createHttps({ cert: readFileSync(`${certs}/server.pem`), key: readFileSync(`${certs}/server.key`) }), wss);
