// MQTT.js: both versions over every transport; sizes, bursts and order.

import assert from 'node:assert/strict';

import { arrivals, connect, publishAll, test, texts, TRANSPORTS, unique, VERSIONS } from './harness.mjs';

// Remaining Length takes one byte more at each step; the last spans several TLS records and frames.
const SIZES = [0, 1, 127, 128, 16_383, 16_384, 200_000];
const BURST = 5000;

for (const version of VERSIONS) {
  for (const transport of TRANSPORTS) {
    test(`v${version} over ${transport}: payloads of all sizes arrive at each QoS`, async (t) => {
      const client = await connect(t, { transport, version });
      const name = unique();
      await client.subscribeAsync(`${name}/#`, { qos: 2 });
      const sent = [];
      for (const qos of [0, 1, 2]) {
        for (const size of SIZES) {
          const payload = Buffer.alloc(size, `${qos}abcdefg`);
          sent.push({ topic: `${name}/${qos}`, qos, payload });
          await client.publishAsync(`${name}/${qos}`, payload, { qos });
        }
      }
      const got = (await arrivals(client, sent.length)).map(({ topic, payload, packet }) => ({ topic, qos: packet.qos, payload }));
      // Order is promised for each QoS alone.
      for (const qos of [0, 1, 2]) {
        assert.deepEqual(got.filter((m) => m.qos === qos), sent.filter((m) => m.qos === qos));
      }
    });

    test(`v${version} over ${transport}: a retained message meets a new subscriber`, async (t) => {
      const client = await connect(t, { transport, version });
      const name = unique();
      await client.publishAsync(name, 'kept', { qos: 1, retain: true });
      await client.subscribeAsync(name, { qos: 1 });
      const [message] = await arrivals(client, 1);
      assert.deepEqual([message.payload.toString(), message.packet.retain], ['kept', true]);
      await client.publishAsync(name, '', { qos: 1, retain: true });
    });
  }

  for (const transport of ['tcp', 'ws']) {
    for (const qos of [0, 1, 2]) {
      test(`v${version} over ${transport}: ${BURST} messages at QoS ${qos} in one burst arrive once and in order`, async (t) => {
        const subscriber = await connect(t, { transport, version });
        const publisher = await connect(t, { transport, version });
        const name = unique();
        await subscriber.subscribeAsync(name, { qos });
        const sent = Array.from({ length: BURST }, (_, n) => `message ${n}`);
        await publishAll(publisher, name, sent, qos);
        await publisher.publishAsync(name, 'last', { qos });
        await arrivals(subscriber, BURST + 1, 30_000);
        assert.deepEqual(texts(subscriber), [...sent, 'last']);
      });
    }
  }
}

// MQTT 3.1.1 has no Receive Maximum. A broker that stopped reading until PUBREL comes would wait for ever, since
// all PUBREL are behind the last PUBLISH.
test(
  `v4: ${BURST} messages at QoS 2, all in flight at once, arrive once and in order`,
  async (t) => {
    const subscriber = await connect(t, { version: 4 });
    const publisher = await connect(t, { version: 4 });
    const name = unique();
    await subscriber.subscribeAsync(name, { qos: 2 });
    const sent = Array.from({ length: BURST }, (_, n) => `message ${n}`);
    await publishAll(publisher, name, sent, 2, BURST);
    await publisher.publishAsync(name, 'last', { qos: 2 });
    await arrivals(subscriber, BURST + 1, 30_000);
    assert.deepEqual(texts(subscriber), [...sent, 'last']);
  },
  { deviates: 'it applies its limit on messages in flight to MQTT 3.1.1 too, and drops what is above' },
);

for (const transport of TRANSPORTS) {
  test(`over ${transport}: a payload of one mebibyte arrives whole`, async (t) => {
    const client = await connect(t, { transport });
    const name = unique();
    const payload = Buffer.alloc(1 << 20, 'abcdefghijklmnopqrstuvwxyz-');
    await client.subscribeAsync(name, { qos: 1 });
    await client.publishAsync(name, payload, { qos: 1 });
    const [message] = await arrivals(client, 1);
    assert.ok(message.payload.equals(payload));
  });
}

test('both ways at once over one WebSocket, nothing is lost', async (t) => {
  const name = unique();
  const pair = [await connect(t, { transport: 'ws' }), await connect(t, { transport: 'ws' })];
  await Promise.all(pair.map((client, n) => client.subscribeAsync(`${name}/${n}`, { qos: 1 })));
  const sent = Array.from({ length: 2000 }, (_, n) => `${n}`);
  await Promise.all(pair.map((client, n) => publishAll(client, `${name}/${1 - n}`, sent, 1)));
  for (const client of pair) {
    await arrivals(client, sent.length);
    assert.deepEqual(texts(client), sent);
  }
});
