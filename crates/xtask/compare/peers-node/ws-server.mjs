// Echo and fan-out on npm `ws`. A WebSocket at /sub/CHANNEL gets what is posted to /pub/CHANNEL; at any other path each
// message comes back.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

/** Bytes of one publish request. */
const BODY_BYTES_MAX = 1 << 20;

const address = /^(?<host>[\d.]+):(?<port>\d+)$/.exec(process.argv[2] ?? "");
if (!address) {
  console.error("usage: ADDRESS:PORT");
  process.exit(2);
}

/** Channel name to the Set of its sockets. */
const channels = new Map();

const rest = (url, prefix) => (url.startsWith(prefix) ? url.slice(prefix.length) : null);

function subscribe(socket, channel) {
  const subscribers = channels.get(channel) ?? new Set();
  channels.set(channel, subscribers.add(socket));
  socket.on("close", () => {
    subscribers.delete(socket);
    if (subscribers.size === 0) channels.delete(channel);
  });
}

function publish(channel, body) {
  for (const socket of channels.get(channel) ?? []) socket.send(body, { binary: false });
}

const server = createServer((request, response) => {
  const channel = request.method === "POST" ? rest(request.url, "/pub/") : null;
  if (channel === null) {
    response.writeHead(404).end();
    return;
  }
  const chunks = [];
  let bytes = 0;
  request.on("data", (chunk) => {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) request.destroy();
    else chunks.push(chunk);
  });
  request.on("end", () => {
    publish(channel, Buffer.concat(chunks));
    response.writeHead(200, { "Content-Length": 0 }).end();
  });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket, request) => {
  // How a connection ends is the client's affair; without a listener an error would end the process.
  socket.on("error", () => {});
  const channel = rest(request.url, "/sub/");
  if (channel === null) socket.on("message", (data, binary) => socket.send(data, { binary }));
  else subscribe(socket, channel);
});
server.listen({ host: address.groups.host, port: Number(address.groups.port), backlog: 4096 });
