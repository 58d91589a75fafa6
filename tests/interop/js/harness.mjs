// MQTT.js clients that remember what arrived, and waiting for a condition with a deadline.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { randomBytes } from 'node:crypto';
import { test as nodeTest } from 'node:test';

// The modules are installed outside the source tree, where an import by name does not find them.
const require = createRequire(`${process.env.INTEROP_MODULES}/`);
const mqtt = require('mqtt');

const endpoints = JSON.parse(readFileSync(process.env.INTEROP_ENDPOINTS, 'utf8'));
const ca = readFileSync(endpoints.ca);
const PATIENCE_MS = 10_000;
const TEST_MS = 40_000;
const IN_FLIGHT = 500;

export const TRANSPORTS = ['tcp', 'tls', 'ws', 'wss'];
export const VERSIONS = [4, 5];

/** A test that fails when it hangs. `deviates` is why the reference broker is excused from it. */
export function test(name, body, { deviates } = {}) {
  const skip = process.env.INTEROP_BROKER === 'mosquitto' && deviates;
  nodeTest(name, { timeout: TEST_MS, skip: skip || false }, body);
}

/** A word that no other test uses, for topics and client identifiers. */
export const unique = () => `j${randomBytes(7).toString('hex')}`;

function url(transport) {
  const port = endpoints[transport];
  switch (transport) {
    case 'tcp':
      return `mqtt://${endpoints.host}:${port}`;
    case 'tls':
      return `mqtts://${endpoints.host}:${port}`;
    default:
      return `${transport}://${endpoints.host}:${port}/mqtt`;
  }
}

/** The first true value of `condition()`; rejects with `what` when there is none in time. */
export async function until(condition, what, patienceMs = PATIENCE_MS) {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${patienceMs} ms: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * A connected client, ended with the test. `client.got` is what arrived, `client.connacks` each CONNACK.
 * MQTT.js reconnects only if `reconnectPeriod` is given.
 */
export async function connect(t, { transport = 'tcp', version = 5, ...options } = {}) {
  const client = mqtt.connect(url(transport), {
    protocolVersion: version,
    clientId: unique(),
    reconnectPeriod: 0,
    ca,
    ...options,
  });
  client.got = [];
  client.connacks = [];
  client.errors = [];
  client.on('connect', (packet) => client.connacks.push(packet));
  client.on('error', (error) => client.errors.push(error));
  client.on('message', (topic, payload, packet) => client.got.push({ topic, payload, packet }));
  t.after(() => client.end(true));
  await until(() => client.connacks.length > 0, () => `CONNACK over ${transport}: ${client.errors}`);
  return client;
}

/** Exactly this many messages. That none follows is for the test to prove, by a last message. */
export async function arrivals(client, count, patienceMs = PATIENCE_MS) {
  await until(() => client.got.length >= count, () => `${count} messages: ${client.got.length} came`, patienceMs);
  if (client.got.length !== count) throw new Error(`${client.got.length} messages instead of ${count}`);
  return client.got;
}

/** The payloads that arrived, as text. */
export const texts = (client) => client.got.map((message) => message.payload.toString());

/**
 * Publishes all payloads, at most 500 at a time without acknowledgement: MQTT.js leaves it to its user to keep
 * to the server's Receive Maximum.
 */
export async function publishAll(client, topic, payloads, qos, inFlight = IN_FLIGHT) {
  for (let start = 0; start < payloads.length; start += inFlight) {
    const part = payloads.slice(start, start + inFlight);
    await Promise.all(part.map((payload) => client.publishAsync(topic, payload, { qos })));
  }
}

/** Ends the connection without DISCONNECT, as a lost network would. */
export const cut = (client) => client.stream.destroy();
