"""Paho: sessions that outlive connections, wills, takeover, keep-alive."""

import random

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from clients import NEVER_EXPIRES, Raw
from waiting import until

MODERN = [pytest.param(4, id="v311"), pytest.param(5, id="v5")]
KEPT = {"clean": False, "connect": {"SessionExpiryInterval": NEVER_EXPIRES}}
CUTS = 8


def kept(version):
    """Options of a client whose session is kept."""
    return KEPT | {"version": version} if version == 5 else {"clean": False, "version": version}


@pytest.mark.parametrize("version", MODERN)
@pytest.mark.parametrize("qos", [1, 2])
def test_connections_cut_in_flight_lose_nothing(connect, name, version, qos):
    # [MQTT-4.4.0-1]: what is unacknowledged is sent again; QoS 2 arrives once all the same.
    # After a cut Paho may have more in flight than before, but far less than our Receive Maximum.
    subscriber = connect(f"{name}s", reconnects=True, **kept(version))
    subscriber.subscribe(name, qos)
    publisher = connect(f"{name}p", reconnects=True, **kept(version))
    sent = [str(n).encode() for n in range(1000)]
    when_to_cut = random.Random(7)
    cuts = sorted(when_to_cut.sample(range(100, 900), CUTS))
    victims = [when_to_cut.choice([publisher, subscriber]) for _ in cuts]
    for payload in sent:
        publisher.send(name, payload, qos)
    for cut, victim in zip(cuts, victims):
        until(lambda c=cut: len(subscriber.messages) >= c, "progress between the cuts", secs=20)
        connections = len(victim.connacks)
        victim.cut()
        until(lambda v=victim, c=connections: len(v.connacks) > c, "a new connection")
        assert victim.session_present
    until(lambda: sent[-1] in subscriber.payloads, lambda: f"the last message; {len(subscriber.messages)} came", secs=20)
    publisher.publish(name, b"end", qos)
    until(lambda: b"end" in subscriber.payloads, "the end")
    first_copies = list(dict.fromkeys(subscriber.payloads))
    assert first_copies == [*sent, b"end"]
    if qos == 2:
        assert subscriber.payloads == first_copies


@pytest.mark.parametrize("version", MODERN)
def test_offline_queue_is_delivered_in_order_after_reconnect(connect, name, version):
    first = connect(f"{name}s", **kept(version))
    assert not first.session_present
    first.subscribe(f"{name}/#", 2)
    first.disconnect()
    publisher = connect(f"{name}p", version=version)
    for n in range(300):
        publisher.send(f"{name}/{n % 3}", str(n).encode(), n % 2 + 1)
    publisher.publish(f"{name}/end", b"end", 2)
    second = connect(f"{name}s", **kept(version))
    assert second.session_present
    until(lambda: len(second.messages) >= 301, lambda: f"301 messages: {len(second.messages)} came")
    for topic in range(3):
        for qos in (1, 2):
            got = [m.payload for m in second.messages if m.topic == f"{name}/{topic}" and m.qos == qos]
            assert got == [str(n).encode() for n in range(300) if n % 3 == topic and n % 2 + 1 == qos]


@pytest.mark.parametrize("version", MODERN)
def test_unacknowledged_message_is_sent_again_with_dup(connect, name, version):
    # [MQTT-3.3.1-1]
    first = connect(f"{name}s", manual_ack=True, **kept(version))
    first.subscribe(name, 1)
    connect(f"{name}p", version=version).publish(name, b"x", 1)
    original = first.await_messages(1)[0]
    assert not original.dup
    first.cut()
    first.await_disconnect()
    second = connect(f"{name}s", **kept(version))
    again = second.await_messages(1)[0]
    assert (again.dup, again.mid, again.payload) == (True, original.mid, b"x")


@pytest.mark.parametrize("version", MODERN)
def test_clean_start_discards_the_session(connect, name, version):
    # [MQTT-3.1.2-4]
    connect(name, **kept(version)).subscribe(f"{name}/topic", 1)
    clean = connect(name, version=version)
    assert not clean.session_present
    clean.publish(f"{name}/topic", b"x", 1)
    clean.subscribe(f"{name}/end", 1)
    clean.publish(f"{name}/end", b"end", 1)
    assert clean.await_messages(1)[0].payload == b"end"


@pytest.mark.reference_deviates("it closes the older connection without a DISCONNECT [MQTT-3.1.4-3]")
def test_newer_connection_takes_over_with_0x8e(connect, name):
    # [MQTT-3.1.4-3]
    older = connect(name)
    newer = connect(name)
    assert older.await_disconnect().value == 0x8E
    newer.subscribe(name, 1)
    newer.publish(name, b"x", 1)
    newer.await_messages(1)


def test_newer_connection_takes_over_from_an_older_version(connect, name):
    # [MQTT-3.1.1/3.1.4-2]
    older = connect(name, version=4)
    newer = connect(name, version=5)
    older.await_disconnect()
    assert newer.connacks[0][1].value == 0


def test_a_connection_taken_over_resumes_the_session_in_flight(connect, name):
    first = connect(name, manual_ack=True, **kept(5))
    first.subscribe(f"{name}/t", 1)
    publisher = connect(f"{name}p")
    publisher.publish(f"{name}/t", b"x", 1)
    first.await_messages(1)
    second = connect(name, **kept(5))
    assert second.session_present
    assert second.await_messages(1)[0].payload == b"x"


@pytest.mark.parametrize("version", MODERN)
def test_will_is_published_when_the_connection_is_cut(connect, name, version):
    heir = connect(f"{name}h", version=version)
    heir.subscribe(f"{name}/will", 2)
    connect(f"{name}v", version=version, will=(f"{name}/will", b"gone", 2, False)).cut()
    assert (heir.await_messages(1)[0].payload, heir.messages[0].qos) == (b"gone", 2)


def test_delayed_will_is_cancelled_by_a_timely_return(connect, name):
    # [MQTT-3.1.3-9]
    heir = connect(f"{name}h")
    heir.subscribe(f"{name}/#", 1)
    with_delay = {"will": (f"{name}/will", b"gone", 1, False), "will_properties": {"WillDelayInterval": 1}}
    victim = connect(f"{name}v", **KEPT, **with_delay)
    victim.cut()
    victim.await_disconnect()
    back = connect(f"{name}v", **KEPT)
    assert back.session_present
    # A will of another client with the same delay marks the time at which the cancelled one would have come.
    connect(f"{name}c", connect={"SessionExpiryInterval": 60}, will=(f"{name}/clock", b"tick", 1, False),
            will_properties={"WillDelayInterval": 1}).cut()  # fmt: skip
    until(lambda: heir.messages, "the other will")
    assert heir.payloads == [b"tick"]


def test_delayed_will_comes_at_session_end_if_that_is_earlier(connect, name):
    # [MQTT-3.1.2-8]
    heir = connect(f"{name}h")
    heir.subscribe(f"{name}/will", 1)
    connect(f"{name}v", connect={"SessionExpiryInterval": 1}, will=(f"{name}/will", b"gone", 1, False),
            will_properties={"WillDelayInterval": 600}).cut()  # fmt: skip
    assert heir.await_messages(1)[0].payload == b"gone"


def test_will_is_kept_on_disconnect_and_sent_on_disconnect_with_will(connect, name):
    heir = connect(f"{name}h")
    heir.subscribe(f"{name}/#", 1)
    connect(f"{name}a", will=(f"{name}/no", b"no", 1, False)).disconnect()
    with_will = ReasonCode(PacketTypes.DISCONNECT, identifier=0x04)
    connect(f"{name}b", will=(f"{name}/yes", b"yes", 1, False)).disconnect(with_will)
    assert heir.await_messages(1)[0].payload == b"yes"


def test_session_expiry_can_be_changed_at_disconnect(connect, name):
    client = connect(name, **KEPT)
    client.subscribe(name, 1)
    client.disconnect(SessionExpiryInterval=0)
    assert not connect(name, **KEPT).session_present


@pytest.mark.parametrize("version", MODERN)
@pytest.mark.reference_deviates("it says nothing to a client of MQTT 5 before it closes, which the standard allows")
def test_silent_client_is_cut_off_after_its_keep_alive(broker, connect, name, version):
    # [MQTT-3.1.2-22]: after 1.5 times one second. MQTT 5 has a reason code for it, and we say it.
    with Raw(broker) as silent:
        assert silent.connect(name, keep_alive=1, version=version)[3] == 0
        ended = silent.until_end()
    if version == 5:
        assert ended[:1] == b"\xe0" and ended[2] == 0x8D, ended.hex(" ")


def test_pings_keep_a_connection_open(broker, name):
    with Raw(broker) as client:
        client.connect(name, keep_alive=1)
        for _ in range(20):
            client.send(b"\xc0\x00")
            assert client.packet() == b"\xd0\x00"
