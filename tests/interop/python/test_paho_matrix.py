"""Paho: every version over every transport, sizes at each border, order and exactly-once counts."""

import pytest

from waiting import until

VERSIONS = [pytest.param(3, id="v31"), pytest.param(4, id="v311"), pytest.param(5, id="v5")]
MODERN = VERSIONS[1:]
TRANSPORTS = ["tcp", "tls", "mtls", "ws", "wss", "unix"]

# Remaining Length takes one byte more at each step; the last also spans several TLS records and frames.
SIZES = [0, 1, 100, 127, 128, 16_383, 16_384, 70_000]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_payloads_of_all_sizes_arrive_at_each_qos(connect, name, version, transport):
    client = connect(name, version=version, transport=transport)
    assert client.subscribe(f"{name}/#", 2) == [2]
    sent = [(f"{name}/{qos}", bytes(n % 251 for n in range(size)), qos) for qos in (0, 1, 2) for size in SIZES]
    for topic, payload, qos in sent:
        client.publish(topic, payload, qos)
    got = [(m.topic, m.payload, m.qos) for m in client.await_messages(len(sent))]
    # Order is promised for each QoS alone.
    for qos in (0, 1, 2):
        assert [g for g in got if g[2] == qos] == [s for s in sent if s[2] == qos]


@pytest.mark.parametrize("transport", ["tcp", "ws", "tls"])
def test_payload_of_one_mebibyte_arrives_whole(connect, name, transport):
    payload = bytes(range(256)) * 4096
    client = connect(name, transport=transport)
    client.subscribe(name, 1)
    client.publish(name, payload, 1)
    assert client.await_messages(1)[0].payload == payload


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", MODERN)
def test_a_thousand_messages_arrive_once_and_in_order(connect, name, version, qos):
    # [MQTT-4.6.0-5]
    subscriber = connect(f"{name}s", version=version)
    subscriber.subscribe(name, qos)
    publisher = connect(f"{name}p", version=version)
    sent = [str(n).encode() for n in range(1000)]
    for payload in sent:
        publisher.send(name, payload, qos)
    subscriber.await_messages(1000, secs=20)
    publisher.publish(name, b"last", qos)
    subscriber.await_messages(1001)
    assert subscriber.payloads == [*sent, b"last"]


@pytest.mark.parametrize("version", MODERN)
def test_each_of_many_subscribers_gets_every_message(connect, name, version):
    subscribers = [connect(f"{name}{n}", version=version) for n in range(10)]
    for n, subscriber in enumerate(subscribers):
        subscriber.subscribe(name, n % 3)
    publisher = connect(f"{name}p", version=version)
    sent = [str(n).encode() for n in range(100)]
    for payload in sent:
        publisher.send(name, payload, 2)
    for subscriber in subscribers:
        subscriber.await_messages(100)
        assert subscriber.payloads == sent


@pytest.mark.parametrize("version", MODERN)
def test_wildcards_match_by_level_and_leave_system_topics_out(connect, name, version):
    # [MQTT-4.7.2-1]
    topics = [name, f"{name}/a", f"{name}/a/b", f"{name}/a/b/c", f"{name}/b/c"]
    filters = {
        f"{name}/#": set(topics),
        f"{name}/+/c": {f"{name}/b/c"},
        f"{name}/a/+": {f"{name}/a/b"},
        f"{name}/+/b/+": {f"{name}/a/b/c"},
        "+": {name},
    }
    publisher = connect(f"{name}p", version=version)
    for n, (topic_filter, expected) in enumerate(filters.items()):
        subscriber = connect(f"{name}{n}", version=version)
        subscriber.subscribe(topic_filter, 1)
        subscriber.subscribe(f"{name}end", 1)
        for topic in [*topics, "$" + name]:
            publisher.publish(topic, b"", 1)
        publisher.publish(f"{name}end", b"", 1)
        got = {m.topic for m in await_end(subscriber, f"{name}end")}
        # The filter `+` also sees what other tests publish.
        assert {t for t in got if t.lstrip("$").startswith(name)} - {f"{name}end"} == expected, topic_filter


def await_end(subscriber, topic):
    """All messages up to the one on the topic."""
    until(lambda: any(m.topic == topic for m in list(subscriber.messages)), f"the message on {topic}")
    return list(subscriber.messages)


@pytest.mark.parametrize("version", MODERN)
def test_overlapping_subscriptions_deliver_at_the_highest_qos(connect, name, version):
    # [MQTT-3.3.4-2]: one copy for each subscription, or one at the highest QoS, are both right.
    client = connect(name, version=version)
    client.subscribe(f"{name}/#", 0)
    client.subscribe(f"{name}/+", 2)
    client.publish(f"{name}/a", b"x", 2)
    client.publish(f"{name}/end", b"", 2)
    got = [m for m in await_end(client, f"{name}/end") if m.payload == b"x"]
    assert len(got) <= 2
    assert max(m.qos for m in got) == 2
