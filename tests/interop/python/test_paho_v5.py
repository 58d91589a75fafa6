"""Paho: what MQTT 5 adds."""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

from clients import NEVER_EXPIRES, Raw, properties
from waiting import until


def test_client_without_identifier_is_assigned_one(connect):
    # [MQTT-3.1.3-6], [MQTT-3.1.3-7]
    one, other = connect(""), connect("")
    assert one.connack.AssignedClientIdentifier
    assert one.connack.AssignedClientIdentifier != other.connack.AssignedClientIdentifier


def test_request_is_answered_through_response_topic_and_correlation_data(connect, name):
    responder, requester = connect(f"{name}r"), connect(f"{name}q")
    responder.subscribe(f"{name}/request", 1)
    requester.subscribe(f"{name}/answer", 1)
    requester.publish(f"{name}/request", b"6*7", 1, ResponseTopic=f"{name}/answer", CorrelationData=b"\x00\x01\xff")
    request = responder.await_messages(1)[0]
    responder.publish(request.properties.ResponseTopic, b"42", 1, CorrelationData=request.properties.CorrelationData)
    answer = requester.await_messages(1)[0]
    assert (answer.payload, answer.properties.CorrelationData) == (b"42", b"\x00\x01\xff")


def test_user_properties_keep_their_order_and_repetitions(connect, name):
    # [MQTT-3.3.2-17], [MQTT-3.3.2-18]
    client = connect(name)
    client.subscribe(name, 1)
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ключ", "значение")]
    client.publish(name, b"x", 1, UserProperty=pairs)
    assert client.await_messages(1)[0].properties.UserProperty == pairs


def test_subscription_identifiers_of_all_matching_subscriptions_are_sent(connect, name):
    # [MQTT-3.3.4-3], [MQTT-3.3.4-4]
    client = connect(name)
    client.subscribe(f"{name}/#", 1, subscription_id=1)
    client.subscribe(f"{name}/a", 1, subscription_id=268_435_455)
    client.subscribe(f"{name}/end", 1)
    client.publish(f"{name}/a", b"x", 1)
    client.publish(f"{name}/end", b"end", 1)
    until(lambda: any(m.payload == b"end" for m in list(client.messages)), "the end")
    found = [i for m in client.messages if m.payload == b"x" for i in m.properties.SubscriptionIdentifier]
    assert sorted(found) == [1, 268_435_455]


def test_no_local_keeps_own_messages_away(connect, name):
    # [MQTT-3.8.3-3]
    own, other = connect(f"{name}o"), connect(f"{name}x")
    own.subscribe(name, 1, noLocal=True)
    own.publish(name, b"own", 1)
    other.publish(name, b"other", 1)
    assert own.await_messages(1)[0].payload == b"other"


@pytest.mark.reference_deviates("it accepts No Local on a shared subscription [MQTT-3.8.3-4]")
def test_no_local_on_a_shared_subscription_is_a_protocol_error(connect, name):
    # [MQTT-3.8.3-4]
    client = connect(name)
    client.paho.subscribe(f"$share/g/{name}", options=SubscribeOptions(1, noLocal=True))
    assert client.await_disconnect().value == 0x82


@pytest.mark.parametrize("handling, first, again", [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling_decides_when_retained_messages_are_sent(connect, name, handling, first, again):
    # [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
    client = connect(name)
    client.publish(f"{name}/r", b"retained", 1, retain=True)
    for expected in (first, again):
        client.messages.clear()
        client.subscribe(f"{name}/r", 1, retainHandling=handling)
        client.publish(f"{name}/r", b"live", 1)
        until(lambda: b"live" in client.payloads, "the live message")
        assert client.payloads == [b"retained"] * expected + [b"live"]
    client.publish(f"{name}/r", b"", 1, retain=True)


def test_retained_message_keeps_its_properties(connect, name):
    client = connect(name)
    client.publish(name, b"x", 1, retain=True, ContentType="a/b", UserProperty=[("k", "v")], MessageExpiryInterval=50)
    client.subscribe(name, 1)
    message = client.await_messages(1)[0]
    assert message.retain
    assert (message.properties.ContentType, message.properties.UserProperty) == ("a/b", [("k", "v")])
    assert 40 <= message.properties.MessageExpiryInterval <= 50
    client.publish(name, b"", 1, retain=True)


def test_publisher_may_use_topic_aliases_and_reassign_them(connect, name):
    # [MQTT-3.3.2-12]
    client = connect(name)
    assert client.connack.TopicAliasMaximum >= 1
    client.subscribe(f"{name}/#", 1)
    client.publish(f"{name}/a", b"1", 1, TopicAlias=1)
    client.publish("", b"2", 1, TopicAlias=1)
    client.publish(f"{name}/b", b"3", 1, TopicAlias=1)
    client.publish("", b"4", 1, TopicAlias=1)
    topics = [m.topic for m in client.await_messages(4)]
    assert topics == [f"{name}/a", f"{name}/a", f"{name}/b", f"{name}/b"]


def test_alias_above_the_maximum_ends_the_connection(connect, name):
    # [MQTT-3.3.2-9]
    client = connect(name)
    over = client.connack.TopicAliasMaximum + 1
    client.send(name, b"x", 1, TopicAlias=over)
    assert client.await_disconnect().value == 0x94


def test_unknown_alias_ends_the_connection(connect, name):
    # MQTT 5, 3.3.2.3.4: a protocol error.
    client = connect(name)
    client.send("", b"x", 1, TopicAlias=1)
    assert client.await_disconnect().value == 0x82


def test_aliases_towards_a_subscriber_are_within_its_maximum(connect, name):
    # [MQTT-3.3.2-11]; a topic that the client cannot resolve would come as an empty one.
    client = connect(name, connect={"TopicAliasMaximum": 2})
    client.subscribe(f"{name}/#", 1)
    aliases, expected = {}, []
    for n in range(60):
        expected.append(f"{name}/{n % 4}")
        client.publish(expected[-1], str(n).encode(), 1)
    topics = []
    for message in client.await_messages(60):
        alias = getattr(message.properties, "TopicAlias", None)
        assert alias is None or 1 <= alias <= 2
        if message.topic and alias:
            aliases[alias] = message.topic
        topics.append(message.topic or aliases[alias])
    assert topics == expected


@pytest.mark.reference_deviates("with the third acknowledgement it sends all that waits [MQTT-3.3.4-9]")
def test_receive_maximum_of_the_client_bounds_what_is_in_flight(connect, name):
    # [MQTT-3.3.4-9]
    client = connect(name, connect={"ReceiveMaximum": 3}, manual_ack=True)
    client.subscribe(name, 1)
    publisher = connect(f"{name}p")
    for n in range(10):
        publisher.publish(name, str(n).encode(), 1)
    # With the answer to another request the broker has had its chance to send more.
    client.subscribe(f"{name}/other", 1)
    acknowledged = 0
    while acknowledged < 10:
        pending = [m for m in list(client.messages) if m.qos == 1]
        assert len(pending) - acknowledged <= 3
        client.paho.ack(pending[acknowledged].mid, 1)
        acknowledged += 1
        until(lambda a=acknowledged: a == 10 or sum(m.qos == 1 for m in list(client.messages)) > a, "the next message")
    assert [m.payload for m in client.messages if m.qos == 1] == [str(n).encode() for n in range(10)]


@pytest.mark.reference_deviates("it refuses the message with 0x97 and closes without DISCONNECT 0x93 (MQTT 5, 4.9)")
def test_client_that_exceeds_receive_maximum_is_disconnected(broker, name):
    # [MQTT-3.3.4-7]
    with Raw(broker) as client:
        connack = client.connect(name)
        receive_maximum = read_receive_maximum(connack)
        topic = len(name).to_bytes(2) + name.encode()
        for mid in range(1, receive_maximum + 2):
            body = topic + mid.to_bytes(2) + b"\x00"
            client.send(b"\x34" + bytes([len(body)]) + body)
        packets = split(client.until_end())
    assert packets[-1][0] == 0xE0, packets[-1].hex(" ")
    assert packets[-1][2] == 0x93


def split(data):
    """The packets of a stream of packets that are shorter than 128 bytes."""
    packets = []
    while data:
        packets.append(data[: 2 + data[1]])
        data = data[2 + data[1] :]
    return packets


def read_receive_maximum(connack):
    """Receive Maximum of a CONNACK, by Paho's own decoder."""
    read = properties(PacketTypes.CONNACK)
    read.unpack(connack[4:])
    return getattr(read, "ReceiveMaximum", 65_535)


def test_maximum_packet_size_of_the_client_is_kept_to(connect, name):
    # [MQTT-3.1.2-24], [MQTT-3.1.2-25]
    client = connect(name, connect={"MaximumPacketSize": 300})
    client.subscribe(name, 1)
    publisher = connect(f"{name}p")
    publisher.publish(name, b"x" * 400, 1)
    publisher.publish(name, b"small", 1)
    assert client.await_messages(1)[0].payload == b"small"


def test_publish_without_subscribers_is_acknowledged_as_such(connect, name):
    client = connect(name)
    # 0x10 (no matching subscribers) is what the standard offers, 0x00 what it also allows.
    assert client.publish(name, b"x", 1) in (0x00, 0x10)
    assert client.publish(name, b"x", 2) in (0x00, 0x10)


def test_suback_and_unsuback_have_a_code_for_each_filter(connect, name):
    # [MQTT-3.8.4-6], [MQTT-3.11.3-1], [MQTT-3.11.3-2]
    client = connect(name)
    _, mid = client.paho.subscribe([(f"{name}/{qos}", SubscribeOptions(qos)) for qos in (2, 0, 1)])
    codes = until(lambda: client.subacks.get(mid), "SUBACK")
    assert [code.value for code in codes] == [2, 0, 1]
    assert client.unsubscribe([f"{name}/2", f"{name}/none", f"{name}/1"]) == [0x00, 0x11, 0x00]


def test_keep_alive_session_expiry_and_expiry_of_queued_messages_work_together(connect, name):
    kept = {"clean": False, "connect": {"SessionExpiryInterval": 60}}
    client = connect(name, **kept)
    client.subscribe(name, 1)
    client.disconnect()
    publisher = connect(f"{name}p")
    publisher.publish(name, b"lasting", 1, MessageExpiryInterval=100)
    publisher.publish(name, b"eternal", 1)
    again = connect(name, **kept)
    lasting, eternal = again.await_messages(2)
    assert 80 <= lasting.properties.MessageExpiryInterval <= 100
    assert not hasattr(eternal.properties, "MessageExpiryInterval")


@pytest.mark.reference_deviates("it drops what a leaving member had not acknowledged (a SHOULD of MQTT 5, 4.8.2)")
def test_member_that_leaves_hands_its_messages_to_the_others(connect, name):
    options = {"manual_ack": True, "clean": True, "connect": {"SessionExpiryInterval": 0}}
    leaving = connect(f"{name}a", **options)
    leaving.subscribe(f"$share/g/{name}", 1)
    publisher = connect(f"{name}p")
    for n in range(20):
        publisher.publish(name, str(n).encode(), 1)
    until(lambda: leaving.messages, "a message to the first member")
    staying = connect(f"{name}b")
    staying.subscribe(f"$share/g/{name}", 1)
    leaving.cut()
    until(lambda: len(staying.messages) >= 20, lambda: f"20 messages with the member that stays: {staying.payloads}")
    assert sorted(staying.payloads, key=int) == [str(n).encode() for n in range(20)]


def test_capabilities_are_not_denied(connect, name):
    connack = connect(name, connect={"SessionExpiryInterval": NEVER_EXPIRES}).connack
    for capability in ("RetainAvailable", "WildcardSubscriptionAvailable", "SubscriptionIdentifierAvailable",
                       "SharedSubscriptionAvailable"):  # fmt: skip
        assert getattr(connack, capability, 1) == 1
    assert getattr(connack, "MaximumQoS", 2) == 2
