"""mosquitto_pub and mosquitto_sub: every version over every transport, and what all versions have."""

import pytest

VERSIONS = [pytest.param(3, id="v31"), pytest.param(4, id="v311"), pytest.param(5, id="v5")]
TRANSPORTS = ["tcp", "tls", "mtls", "unix"]
QOS = [0, 1, 2]
OVERRUN = pytest.mark.reference_deviates(
    "at QoS 2 it counts a message as done with PUBREC and so exceeds the Receive Maximum of 20 [MQTT-3.3.4-9]"
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_qos_arrives_once_over_each_transport(shell, name, version, transport):
    with_each_qos = shell.sub("-t", f"{name}/#", "-q", 2, version=version, transport=transport)
    for qos in QOS:
        shell.pub("-t", f"{name}/{qos}", "-m", f"payload {qos}", "-q", qos, version=version, transport=transport)
    got = with_each_qos.await_messages(3)
    assert [(m["topic"], m["payload"], m["qos"], m["retain"]) for m in got] == [
        (f"{name}/{qos}", f"payload {qos}", qos, 0) for qos in QOS
    ]


@pytest.mark.parametrize("granted", QOS)
@pytest.mark.parametrize("published", QOS)
def test_delivered_qos_is_the_lower_of_published_and_granted(shell, name, published, granted):
    # [MQTT-3.8.4-8]
    subscriber = shell.sub("-t", name, "-q", granted)
    shell.pub("-t", name, "-m", "x", "-q", published)
    assert subscriber.await_messages(1)[0]["qos"] == min(published, granted)


@pytest.mark.parametrize("publisher", VERSIONS)
@pytest.mark.parametrize("subscriber", VERSIONS)
def test_versions_talk_to_each_other(shell, name, publisher, subscriber):
    listening = shell.sub("-t", name, "-q", 2, version=subscriber)
    shell.pub("-t", name, "-m", "grüße ☕", "-q", 2, version=publisher)
    assert listening.await_messages(1)[0]["payload"] == "grüße ☕"


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_message_is_kept_replaced_and_removed(shell, name, version):
    # [MQTT-3.3.1-5], [MQTT-3.3.1-6]
    shell.pub("-t", name, "-m", "old", "-r", "-q", 1, version=version)
    shell.pub("-t", name, "-m", "new", "-r", "-q", 1, version=version)
    messages, _ = shell.drain("-t", name, "-q", 1, "-C", 1, "-W", 5, version=version)
    assert [(m["payload"], m["retain"]) for m in messages] == [("new", 1)]

    shell.pub("-t", name, "-n", "-r", "-q", 1, version=version)
    afterwards = shell.sub("-t", name, "-q", 1, version=version)
    shell.pub("-t", name, "-m", "live", "-q", 1, version=version)
    assert [(m["payload"], m["retain"]) for m in afterwards.await_messages(1)] == [("live", 0)]


def test_retained_messages_match_wildcards(shell, name):
    topics = {f"{name}/a", f"{name}/a/b", f"{name}/c", name}
    for topic in topics:
        shell.pub("-t", topic, "-m", topic, "-r", "-q", 1)
    below, _ = shell.drain("-t", f"{name}/#", "-q", 1, "-C", 4, "-W", 5)
    one_level, _ = shell.drain("-t", f"{name}/+", "-q", 1, "-C", 2, "-W", 5)
    assert {m["topic"] for m in below} == topics
    assert {m["topic"] for m in one_level} == {f"{name}/a", f"{name}/c"}
    removed, _ = shell.drain("-t", f"{name}/#", "-q", 1, "--remove-retained", "-C", 4, "-W", 5)
    assert {m["topic"] for m in removed} == topics


@pytest.mark.parametrize("version", VERSIONS)
def test_will_is_published_when_the_client_is_killed(shell, name, version):
    # [MQTT-3.1.2-8]
    heir = shell.sub("-t", f"{name}/will", "-q", 2, version=version)
    will = ["--will-topic", f"{name}/will", "--will-payload", "gone", "--will-qos", 2, "--will-retain"]
    victim = shell.sub("-t", f"{name}/unused", *will, version=version)
    victim.kill()
    assert [(m["payload"], m["qos"], m["retain"]) for m in heir.await_messages(1)] == [("gone", 2, 0)]
    kept, _ = shell.drain("-t", f"{name}/will", "-C", 1, "-W", 5, version=version)
    assert [(m["payload"], m["retain"]) for m in kept] == [("gone", 1)]
    shell.pub("-t", f"{name}/will", "-n", "-r", version=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_will_is_dropped_on_a_clean_disconnect(shell, name, version):
    # [MQTT-3.14.4-3]
    heir = shell.sub("-t", f"{name}/#", "-q", 1, version=version)
    shell.drain("-t", "unused", "-E", "--will-topic", f"{name}/will", "--will-payload", "gone", version=version)
    shell.pub("-t", f"{name}/last", "-m", "last", "-q", 1, version=version)
    assert heir.await_messages(1)[0]["payload"] == "last"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
@OVERRUN
def test_persistent_session_gets_what_it_missed_in_order(shell, name, version, qos):
    shell.drain("-i", name, "-c", "-t", name, "-q", qos, "-E", version=version)
    lines = [f"missed {n}" for n in range(50)]
    shell.pub("-t", name, "-q", qos, "-l", stdin="\n".join(lines) + "\n", version=version)
    messages, code = shell.drain("-i", name, "-c", "-t", name, "-q", qos, "-C", 50, "-W", 10, version=version)
    assert code == 0
    assert [m["payload"] for m in messages] == lines
    assert {m["qos"] for m in messages} == {qos}
    # A clean start throws the session away.
    shell.drain("-i", name, "-t", f"{name}/other", "-E", version=version)
    shell.pub("-t", name, "-m", "too late", "-q", qos, version=version)
    fresh = shell.sub("-i", name, "-t", name, "-q", qos, version=version)
    shell.pub("-t", name, "-m", "live", "-q", qos, version=version)
    assert [m["payload"] for m in fresh.await_messages(1)] == ["live"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_payload_of_one_mebibyte_arrives_whole(shell, name, tmp_path, transport):
    payload = "".join(chr(ord("a") + n % 26) for n in range(1 << 20))
    file = tmp_path / "payload"
    file.write_text(payload)
    subscriber = shell.sub("-t", name, "-q", 1, transport=transport)
    shell.pub("-t", name, "-f", file, "-q", 1, transport=transport)
    message = subscriber.await_messages(1)[0]
    assert message["payloadlen"] == len(payload)
    assert message["payload"] == payload


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", QOS)
@OVERRUN
def test_a_thousand_lines_arrive_in_order(shell, name, qos, version):
    # [MQTT-4.6.0-5]
    subscriber = shell.sub("-t", name, "-q", qos, version=version)
    lines = [f"line {n}" for n in range(1000)]
    shell.pub("-t", name, "-q", qos, "-l", stdin="\n".join(lines) + "\n", version=version)
    subscriber.await_messages(1000)
    assert subscriber.payloads == lines


def test_empty_payload_and_deep_topic_arrive(shell, name):
    deep = "/".join([name, *"abcdefghijklmnopqrst"])
    subscriber = shell.sub("-t", f"{name}/#", "-q", 1)
    shell.pub("-t", deep, "-n", "-q", 1)
    message = subscriber.await_messages(1)[0]
    assert (message["topic"], message["payloadlen"]) == (deep, 0)


def test_unsubscribed_filter_delivers_nothing(shell, name):
    shell.drain("-i", name, "-c", "-t", f"{name}/gone", "-t", f"{name}/kept", "-q", 1, "-E")
    shell.drain("-i", name, "-c", "-t", f"{name}/kept", "-U", f"{name}/gone", "-q", 1, "-E")
    # -E may leave before UNSUBACK, but not before UNSUBSCRIBE is sent; a new connection waits for its turn.
    resumed = shell.sub("-i", name, "-c", "-t", f"{name}/kept", "-q", 1)
    shell.pub("-t", f"{name}/gone", "-m", "unwanted", "-q", 1)
    shell.pub("-t", f"{name}/kept", "-m", "wanted", "-q", 1)
    assert [m["payload"] for m in resumed.await_messages(1)] == ["wanted"]


def test_client_without_certificate_is_refused_where_one_is_required(shell, name, broker):
    refused = shell.pub("-p", broker.mtls, "--cafile", broker.ca, "-t", name, "-m", "x", check=False)
    assert refused.returncode != 0


def test_plain_mqtt_on_a_tls_port_is_refused(shell, name, broker):
    refused = shell.pub("-p", broker.tls, "-t", name, "-m", "x", check=False)
    assert refused.returncode != 0


def test_sys_topics_tell_version_and_uptime(shell):
    messages, _ = shell.drain("-t", "$SYS/broker/version", "-t", "$SYS/broker/uptime", "-C", 2, "-W", 15)
    assert {m["topic"] for m in messages} == {"$SYS/broker/version", "$SYS/broker/uptime"}
    assert all(m["payload"] for m in messages)
