"""mosquitto_pub and mosquitto_sub: what MQTT 5 adds."""

import pytest

from waiting import until


def properties(*pairs, command="publish"):
    """The options for properties of one command."""
    options = []
    for pair in pairs:
        options += ["-D", command, *map(str, pair)]
    return options


def test_properties_are_forwarded_unaltered_and_in_order(shell, name):
    # [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-20]
    subscriber = shell.sub("-t", name, "-q", 1)
    sent = properties(
        ("user-property", "key", "first"),
        ("user-property", "key", "second"),
        ("user-property", "other", "ü"),
        ("content-type", "text/plain"),
        ("response-topic", f"{name}/answer"),
        ("correlation-data", "c-1"),
        ("payload-format-indicator", 1),
    )
    shell.pub("-t", name, "-m", "x", "-q", 1, *sent)
    got = subscriber.await_messages(1)[0]["properties"]
    assert got["content-type"] == "text/plain"
    assert got["response-topic"] == f"{name}/answer"
    assert got["correlation-data"] == "c-1"
    assert got["payload-format-indicator"] == 1
    assert got["user-properties"] == [("key", "first"), ("key", "second"), ("other", "ü")]


def test_will_is_published_on_disconnect_with_will(shell, name):
    # MQTT 5, 3.14.2.1: mosquitto_sub leaves with reason code 0x04 when it is told to end.
    heir = shell.sub("-t", f"{name}/will", "-q", 1)
    leaving = shell.sub("-t", "unused", "--will-topic", f"{name}/will", "--will-payload", "gone")
    leaving.terminate()
    assert heir.await_messages(1)[0]["payload"] == "gone"


def test_message_expiry_is_forwarded_and_counted_down(shell, name):
    # [MQTT-3.3.2-6]
    shell.drain("-i", name, "-c", "-t", name, "-q", 1, "-E")
    shell.pub("-t", name, "-m", "lasting", "-q", 1, *properties(("message-expiry-interval", 100)))
    messages, _ = shell.drain("-i", name, "-c", "-t", name, "-q", 1, "-C", 1, "-W", 5)
    assert 80 <= messages[0]["properties"]["message-expiry-interval"] <= 100


def test_expired_message_is_not_delivered(shell, name):
    # [MQTT-3.3.2-5]
    shell.drain("-i", name, "-c", "-t", name, "-q", 1, "-E")
    shell.pub("-t", name, "-m", "short-lived", "-q", 1, *properties(("message-expiry-interval", 1)))
    shell.pub("-t", name, "-m", "lasting", "-q", 1)
    # The clock is a subscriber that hears nothing for two seconds.
    shell.drain("-t", f"{name}/silence", "-W", 2)
    messages, _ = shell.drain("-i", name, "-c", "-t", name, "-q", 1, "-C", 1, "-W", 5)
    assert [m["payload"] for m in messages] == ["lasting"]


def test_expired_retained_message_is_not_delivered(shell, name):
    shell.pub("-t", f"{name}/short", "-m", "short-lived", "-r", "-q", 1, *properties(("message-expiry-interval", 1)))
    shell.pub("-t", f"{name}/long", "-m", "lasting", "-r", "-q", 1)
    shell.drain("-t", f"{name}/silence", "-W", 2)
    subscriber = shell.sub("-t", f"{name}/#", "-q", 1)
    shell.pub("-t", f"{name}/end", "-m", "end", "-q", 1)
    assert [m["payload"] for m in subscriber.await_messages(2)] == ["lasting", "end"]
    shell.pub("-t", f"{name}/long", "-n", "-r")


def test_session_expiry_ends_the_session(shell, name):
    # [MQTT-3.1.2-23]
    expected = {f"{name}/short": ["live"], f"{name}/long": ["missed", "live"]}
    shell.drain("-i", f"{name}s", "-x", 1, "-t", f"{name}/short", "-q", 1, "-E")
    shell.drain("-i", f"{name}l", "-x", 60, "-t", f"{name}/long", "-q", 1, "-E")
    shell.drain("-t", f"{name}/silence", "-W", 2)
    for topic in expected:
        shell.pub("-t", topic, "-m", "missed", "-q", 1)
    for client, topic in zip((f"{name}s", f"{name}l"), expected):
        subscriber = shell.sub("-i", client, "-c", "-t", topic, "-q", 1)
        shell.pub("-t", topic, "-m", "live", "-q", 1)
        until(lambda s=subscriber: "live" in s.payloads, subscriber.story)
        assert subscriber.payloads == expected[topic]


def test_shared_subscription_delivers_each_message_to_one_member(shell, name):
    # MQTT 5, 4.8.2
    members = [shell.sub("-t", f"$share/group/{name}", "-q", 1) for _ in range(3)]
    outsider = shell.sub("-t", name, "-q", 1)
    lines = [f"line {n}" for n in range(90)]
    shell.pub("-t", name, "-q", 1, "-l", stdin="\n".join(lines) + "\n")
    outsider.await_messages(90)
    until(lambda: sum(len(m.messages) for m in members) >= 90, "90 messages over all members")
    shares = [m.payloads for m in members]
    assert sorted(line for share in shares for line in share) == sorted(lines)
    assert all(shares), "a member got nothing"


def test_shared_subscription_has_each_group_served(shell, name):
    groups = [shell.sub("-t", f"$share/{group}/{name}/+", "-q", 1) for group in ("a", "b")]
    shell.pub("-t", f"{name}/x", "-m", "x", "-q", 1)
    for member in groups:
        assert member.await_messages(1)[0]["payload"] == "x"


@pytest.mark.reference_deviates("it sends retained messages to a new shared subscription (MQTT 5, 4.8.2)")
def test_retained_message_is_not_sent_to_a_shared_subscription(shell, name):
    shell.pub("-t", name, "-m", "retained", "-r", "-q", 1)
    member = shell.sub("-t", f"$share/g/{name}", "-q", 1)
    shell.pub("-t", name, "-m", "live", "-q", 1)
    assert [m["payload"] for m in member.await_messages(1)] == ["live"]
    shell.pub("-t", name, "-n", "-r")


def test_retain_as_published_keeps_the_flag(shell, name):
    # [MQTT-3.3.1-12], [MQTT-3.3.1-13]
    as_published = shell.sub("-t", name, "-q", 1, "--retain-as-published")
    cleared = shell.sub("-t", name, "-q", 1)
    shell.pub("-t", name, "-m", "x", "-r", "-q", 1)
    assert as_published.await_messages(1)[0]["retain"] == 1
    assert cleared.await_messages(1)[0]["retain"] == 0
    shell.pub("-t", name, "-n", "-r")


def test_topic_alias_of_the_publisher_is_resolved(shell, name):
    subscriber = shell.sub("-t", name, "-q", 1)
    # mosquitto_pub sends the topic with the first message and the bare alias with the others.
    shell.pub("-t", name, "-m", "aliased", "-q", 1, "--repeat", 5, *properties(("topic-alias", 3)))
    assert {m["topic"] for m in subscriber.await_messages(5)} == {name}


def test_topic_alias_of_zero_ends_the_connection(shell, name):
    # [MQTT-3.3.2-8]
    refused = shell.pub("-t", name, "-m", "x", "-q", 1, *properties(("topic-alias", 0)), check=False)
    assert refused.returncode != 0 or refused.stderr


def test_will_properties_are_published_with_the_will(shell, name):
    heir = shell.sub("-t", f"{name}/will", "-q", 1)
    sent = properties(("user-property", "why", "killed"), ("content-type", "text/x-will"), command="will")
    victim = shell.sub("-t", "unused", "--will-topic", f"{name}/will", "--will-payload", "gone", *sent)
    victim.kill()
    got = heir.await_messages(1)[0]["properties"]
    assert got["content-type"] == "text/x-will"
    assert got["user-properties"] == {"why": "killed"}


def test_delayed_will_waits_for_its_delay(shell, name):
    # [MQTT-3.1.3-9]
    heir = shell.sub("-t", f"{name}/#", "-q", 1)
    delay = properties(("will-delay-interval", 1), command="will")
    victim = shell.sub("-t", "unused", "-x", 30, "--will-topic", f"{name}/will", "--will-payload", "gone", *delay)
    victim.kill()
    shell.pub("-t", f"{name}/before", "-m", "before", "-q", 1)
    assert [m["payload"] for m in heir.await_messages(1)] == ["before"]
    until(lambda: "gone" in heir.payloads, heir.story)


def test_receive_maximum_of_one_still_gets_everything(shell, name):
    subscriber = shell.sub("-t", name, "-q", 2, *properties(("receive-maximum", 1), command="connect"))
    lines = [f"line {n}" for n in range(100)]
    shell.pub("-t", name, "-q", 2, "-l", stdin="\n".join(lines) + "\n")
    subscriber.await_messages(100)
    assert subscriber.payloads == lines


def test_message_over_the_subscribers_packet_size_is_left_out(shell, name):
    # [MQTT-3.1.2-24], [MQTT-3.1.2-25]
    subscriber = shell.sub("-t", name, "-q", 1, *properties(("maximum-packet-size", 200), command="connect"))
    shell.pub("-t", name, "-m", "x" * 500, "-q", 1)
    shell.pub("-t", name, "-m", "small", "-q", 1)
    assert [m["payload"] for m in subscriber.await_messages(1)] == ["small"]


def test_subscription_identifier_comes_with_the_message(shell, name):
    # [MQTT-3.3.4-3]
    options = properties(("subscription-identifier", 268435455), command="subscribe")
    # %j leaves this property out, and so the last -F asks for it by %S.
    subscriber = shell.sub("-t", name, "-q", 1, *options, "-F", '{"id":"%S","payload":"%p"}')
    shell.pub("-t", name, "-m", "x", "-q", 1)
    assert subscriber.await_messages(1)[0]["id"] == "268435455"
