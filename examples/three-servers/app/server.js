// A small application to put behind a gateway. It needs Node.js and nothing else.
//
//   GET /        a page that names the server that made it
//   GET /health  "ok"
//   WebSocket    any path: every frame comes back as it went in
//
// Environment: PORT (3000), HOST (every address), NAME (the machine's name).

"use strict";

const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { hostname } = require("node:os");
const { join } = require("node:path");

const name = process.env.NAME || hostname();
const page = readFileSync(join(__dirname, "page.html"), "utf8");
let count = 0;

const server = createServer((request, response) => {
  response.setHeader("Cache-Control", "no-store");
  response.setHeader("X-Served-By", name);
  if (request.url === "/health") {
    response.setHeader("Content-Type", "text/plain");
    response.end("ok\n");
    return;
  }
  count += 1;
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(fill({
    name,
    hue: hue(name),
    address: `${(request.socket.localAddress ?? "").replace("::ffff:", "")}:${request.socket.localPort}`,
    count,
    host: request.headers.host ?? "",
  }));
});

function fill(values) {
  return page.replace(/{{(\w+)}}/g, (_, key) => escape(String(values[key])));
}

function escape(text) {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

// Every name has a colour of its own, so that a change of server is seen at a glance.
function hue(text) {
  let sum = 0;
  for (const byte of Buffer.from(text)) sum += byte;
  return (sum * 67) % 360;
}

// ---- WebSocket, RFC 6455 ----

const FRAME_BYTES_MAX = 64 * 1024;
const CLOSE = 8, PING = 9, PONG = 10;

server.on("upgrade", (request, socket, head) => {
  const key = request.headers["sec-websocket-key"];
  if (!key || (request.headers.upgrade ?? "").toLowerCase() !== "websocket") {
    socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    return;
  }
  const accept = createHash("sha1")
    .update(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
    .digest("base64");
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${accept}\r\nX-Served-By: ${name}\r\n\r\n`);

  let pending = Buffer.alloc(0);
  const take = (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    for (;;) {
      const frame = decode(pending);
      if (frame === undefined) return;
      if (frame === null) {
        socket.destroy();
        return;
      }
      pending = pending.subarray(frame.bytes);
      const first = frame.opcode === PING ? frame.first - PING + PONG : frame.first;
      if (frame.opcode !== PONG) socket.write(encode(first, frame.payload));
      if (frame.opcode === CLOSE) {
        socket.end();
        return;
      }
    }
  };
  socket.on("error", () => socket.destroy());
  socket.on("data", take);
  take(head);
});

// The frame at the start of `bytes`; undefined until it is all there, null when it is not acceptable.
function decode(bytes) {
  if (bytes.length < 2) return undefined;
  const masked = (bytes[1] & 0x80) !== 0;
  let length = bytes[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return undefined;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return undefined;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
  }
  if (!masked || length > FRAME_BYTES_MAX) return null;
  if (bytes.length < at + 4 + length) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < length; i += 1) payload[i] ^= mask[i % 4];
  return { first: bytes[0], opcode: bytes[0] & 0x0f, payload, bytes: at + 4 + length };
}

// `first` keeps the sender's FIN bit and opcode: a message in pieces comes back in the same pieces.
function encode(first, payload) {
  let head;
  if (payload.length < 126) {
    head = Buffer.from([first, payload.length]);
  } else if (payload.length < 65536) {
    head = Buffer.from([first, 126, payload.length >> 8, payload.length & 0xff]);
  } else {
    head = Buffer.alloc(10);
    head[0] = first;
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(payload.length), 2);
  }
  return Buffer.concat([head, payload]);
}

server.listen(Number(process.env.PORT || 3000), process.env.HOST || undefined, () => {
  const { address, port } = server.address();
  console.log(`${name} listens on ${address}:${port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
