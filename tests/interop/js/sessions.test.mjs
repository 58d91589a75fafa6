// MQTT.js: wills, sessions that outlive connections, reconnects, MQTT 5 properties.

import assert from 'node:assert/strict';

import { arrivals, connect, cut, test, texts, TRANSPORTS, unique, until, VERSIONS } from './harness.mjs';

/** Options of a client whose session is kept. */
const kept = (version, clientId) => ({
  version,
  clientId,
  clean: false,
  ...(version === 5 ? { properties: { sessionExpiryInterval: 0xffffffff } } : {}),
});

for (const version of VERSIONS) {
  for (const transport of TRANSPORTS) {
    test(`v${version} over ${transport}: a lost connection publishes the will`, async (t) => {
      const name = unique();
      const heir = await connect(t, { transport, version });
      await heir.subscribeAsync(name, { qos: 1 });
      const victim = await connect(t, { transport, version, will: { topic: name, payload: Buffer.from('gone'), qos: 1, retain: false } });
      cut(victim);
      await arrivals(heir, 1);
      assert.deepEqual(texts(heir), ['gone']);
    });
  }

  test(`v${version}: a clean end publishes no will`, async (t) => {
    const name = unique();
    const heir = await connect(t, { version });
    await heir.subscribeAsync(`${name}/#`, { qos: 1 });
    const leaving = await connect(t, { version, will: { topic: `${name}/will`, payload: Buffer.from('gone'), qos: 1, retain: false } });
    await leaving.endAsync();
    await heir.publishAsync(`${name}/last`, 'last', { qos: 1 });
    await arrivals(heir, 1);
    assert.deepEqual(texts(heir), ['last']);
  });

  for (const transport of ['tcp', 'ws']) {
    test(`v${version} over ${transport}: a kept session gets what it missed`, async (t) => {
      const clientId = unique();
      const first = await connect(t, { transport, ...kept(version, clientId) });
      assert.equal(first.connacks[0].sessionPresent, false);
      await first.subscribeAsync(clientId, { qos: 2 });
      await first.endAsync();
      const publisher = await connect(t, { transport, version });
      const sent = Array.from({ length: 200 }, (_, n) => `missed ${n}`);
      for (const payload of sent) await publisher.publishAsync(clientId, payload, { qos: 2 });
      const second = await connect(t, { transport, ...kept(version, clientId) });
      assert.equal(second.connacks[0].sessionPresent, true);
      await arrivals(second, sent.length);
      assert.deepEqual(texts(second), sent);
    });

    test(`v${version} over ${transport}: a client that reconnects by itself loses nothing`, async (t) => {
      const clientId = unique();
      const subscriber = await connect(t, { transport, ...kept(version, clientId), reconnectPeriod: 10 });
      await subscriber.subscribeAsync(clientId, { qos: 1 });
      const publisher = await connect(t, { transport, version });
      const sent = Array.from({ length: 600 }, (_, n) => `${n}`);
      for (const [n, payload] of sent.entries()) {
        await publisher.publishAsync(clientId, payload, { qos: 1 });
        if (n % 200 === 100) cut(subscriber);
      }
      await until(() => texts(subscriber).includes(sent.at(-1)), () => `the last message; ${subscriber.got.length} came`);
      assert.ok(subscriber.connacks.length > 1, 'it never reconnected');
      assert.ok(subscriber.connacks.at(-1).sessionPresent);
      assert.deepEqual([...new Set(texts(subscriber))], sent);
    });
  }
}

test('MQTT 5 properties arrive as sent', async (t) => {
  const client = await connect(t, { transport: 'wss' });
  const name = unique();
  await client.subscribeAsync(name, { qos: 1, properties: { subscriptionIdentifier: 7 } });
  const properties = {
    payloadFormatIndicator: true,
    contentType: 'text/plain',
    responseTopic: `${name}/answer`,
    correlationData: Buffer.from([0, 1, 255]),
    userProperties: { one: ['first', 'second'], two: 'zwei' },
    messageExpiryInterval: 60,
  };
  await client.publishAsync(name, 'x', { qos: 1, properties });
  const [{ packet }] = await arrivals(client, 1);
  const { messageExpiryInterval, subscriptionIdentifier, userProperties, ...others } = packet.properties;
  const { messageExpiryInterval: _, userProperties: __, ...expected } = properties;
  assert.deepEqual(others, expected);
  assert.deepEqual({ ...userProperties }, properties.userProperties);
  assert.deepEqual([subscriptionIdentifier].flat(), [7]);
  assert.ok(messageExpiryInterval > 50 && messageExpiryInterval <= 60);
});

test('automatic topic aliases of the publisher are resolved', async (t) => {
  const name = unique();
  const subscriber = await connect(t);
  await subscriber.subscribeAsync(`${name}/#`, { qos: 1 });
  const publisher = await connect(t, { autoAssignTopicAlias: true });
  const topics = Array.from({ length: 200 }, (_, n) => `${name}/${n % 7}`);
  for (const topic of topics) await publisher.publishAsync(topic, 'x', { qos: 1 });
  await arrivals(subscriber, topics.length);
  assert.deepEqual(subscriber.got.map((message) => message.topic), topics);
});

test('a subscriber that offers aliases sees every topic', async (t) => {
  const name = unique();
  const subscriber = await connect(t, { properties: { topicAliasMaximum: 3 } });
  await subscriber.subscribeAsync(`${name}/#`, { qos: 1 });
  const publisher = await connect(t);
  const topics = Array.from({ length: 200 }, (_, n) => `${name}/${n % 7}`);
  for (const topic of topics) await publisher.publishAsync(topic, 'x', { qos: 1 });
  await arrivals(subscriber, topics.length);
  assert.deepEqual(subscriber.got.map((message) => message.topic), topics);
});

test('a shared subscription spreads messages over WebSocket clients', async (t) => {
  const name = unique();
  const members = [];
  for (const transport of ['ws', 'wss', 'tcp']) {
    const member = await connect(t, { transport });
    await member.subscribeAsync(`$share/group/${name}`, { qos: 1 });
    members.push(member);
  }
  const publisher = await connect(t);
  const sent = Array.from({ length: 90 }, (_, n) => `${n}`);
  for (const payload of sent) await publisher.publishAsync(name, payload, { qos: 1 });
  await until(() => members.reduce((sum, member) => sum + member.got.length, 0) >= sent.length, '90 messages');
  assert.deepEqual(members.flatMap(texts).sort(), [...sent].sort());
  assert.ok(members.every((member) => member.got.length > 0), 'a member got nothing');
});

test('takeover closes the older WebSocket connection', async (t) => {
  const clientId = unique();
  const older = await connect(t, { transport: 'ws', clientId });
  let closed = false;
  older.on('close', () => (closed = true));
  await connect(t, { transport: 'ws', clientId });
  await until(() => closed, 'the end of the older connection');
});
