"""Paho clients that remember everything that happened to them, and raw sockets for what Paho would not do."""

import socket
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from waiting import until

NEVER_EXPIRES = 0xFFFFFFFF


def properties(packet, **values):
    """Properties of one packet by Paho's names: `properties(PacketTypes.PUBLISH, ContentType="text")`."""
    made = Properties(packet)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class Pool:
    """Makes clients towards one broker and disconnects at the end those that are left."""

    def __init__(self, broker):
        self.broker = broker
        self.clients = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.stop()

    def connect(self, client_id="", **options):
        """A client whose CONNACK has come."""
        client = Client(self.broker, client_id, **options)
        self.clients.append(client)
        client.start()
        return client


class Client:
    """One Paho client with its network loop in a thread of its own."""

    def __init__(self, broker, client_id, *, version=5, transport="tcp", clean=True, keep_alive=60, will=None,
                 connect=None, will_properties=None, reconnects=False, manual_ack=False):  # fmt: skip
        self.broker, self.version, self.transport = broker, version, transport
        self.keep_alive, self.clean = keep_alive, clean
        self.connect_properties = properties(PacketTypes.CONNECT, **(connect or {})) if version == 5 else None
        self.lock = threading.Lock()
        self.messages, self.connacks, self.disconnects = [], [], []
        self.subacks, self.unsubacks, self.pubacks = {}, {}, {}
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean if version < 5 else None,
            protocol=version,
            transport={"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(transport, "tcp"),
            reconnect_on_failure=reconnects,
            manual_ack=manual_ack,
        )
        self.paho.reconnect_delay_set(0.01, 0.05)
        self.paho.max_queued_messages_set(0)
        self.paho.on_connect = lambda _c, _u, flags, reason, props: self.connacks.append((flags, reason, props))
        self.paho.on_disconnect = lambda _c, _u, _flags, reason, _props: self.disconnects.append(reason)
        self.paho.on_message = lambda _c, _u, message: self.messages.append(message)
        self.paho.on_subscribe = lambda _c, _u, mid, reasons, _props: self.subacks.update({mid: reasons})
        self.paho.on_unsubscribe = lambda _c, _u, mid, reasons, _props: self.unsubacks.update({mid: reasons})
        self.paho.on_publish = lambda _c, _u, mid, reason, _props: self.pubacks.update({mid: reason})
        if transport in ("tls", "mtls", "wss"):
            identity = (broker.client_cert, broker.client_key) if transport == "mtls" else (None, None)
            self.paho.tls_set(broker.ca, *identity)
        if transport in ("ws", "wss"):
            self.paho.ws_set_options(path="/mqtt")
        if will:
            topic, payload, qos, retain = will
            made = properties(PacketTypes.WILLMESSAGE, **(will_properties or {})) if version == 5 else None
            self.paho.will_set(topic, payload, qos, retain, made)

    def start(self):
        host = self.broker.unix if self.transport == "unix" else self.broker.host
        port = 1 if self.transport == "unix" else getattr(self.broker, self.transport)
        options = {"clean_start": self.clean, "properties": self.connect_properties} if self.version == 5 else {}
        self.paho.connect(host, port, self.keep_alive, **options)
        self.paho.loop_start()
        until(lambda: self.connacks, "CONNACK")

    def stop(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def disconnect(self, reason=None, **values):
        """Leaves with DISCONNECT and waits until the connection is gone."""
        if self.version == 5:
            made = properties(PacketTypes.DISCONNECT, **values) if values else None
            self.paho.disconnect(reason, made)
        else:
            self.paho.disconnect()
        until(lambda: self.disconnects, "the end of the connection")
        self.paho.loop_stop()

    def cut(self):
        """Ends the connection without DISCONNECT, as a lost network would."""
        current = self.paho.socket()
        if current is not None:
            try:
                getattr(current, "_socket", current).shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It was down already.

    @property
    def session_present(self):
        return self.connacks[-1][0].session_present

    @property
    def connack(self):
        """Properties of the last CONNACK."""
        return self.connacks[-1][2]

    def subscribe(self, topic, qos=2, subscription_id=None, **options):
        """Subscribes; the reason codes of SUBACK."""
        if self.version == 5:
            made = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=subscription_id) if subscription_id else None
            _, mid = self.paho.subscribe(topic, options=SubscribeOptions(qos, **options), properties=made)
        else:
            _, mid = self.paho.subscribe(topic, qos)
        return [code.value for code in until(lambda: self.subacks.get(mid), f"SUBACK for {topic}")]

    def unsubscribe(self, topic):
        """Unsubscribes; the reason codes of UNSUBACK (there are none before MQTT 5)."""
        _, mid = self.paho.unsubscribe(topic)
        until(lambda: mid in self.unsubacks, f"UNSUBACK for {topic}")
        return [code.value for code in self.unsubacks[mid]]

    def publish(self, topic, payload=b"", qos=1, retain=False, **values):
        """Publishes and returns the reason code once the message is acknowledged, or sent at QoS 0."""
        mid = self.send(topic, payload, qos, retain, **values)
        until(lambda: mid in self.pubacks, f"the end of the publish to {topic}")
        return self.pubacks[mid].value

    def send(self, topic, payload=b"", qos=1, retain=False, **values):
        """Publishes without waiting."""
        made = properties(PacketTypes.PUBLISH, **values) if values else None
        return self.paho.publish(topic, payload, qos, retain, made).mid

    @property
    def payloads(self):
        return [message.payload for message in list(self.messages)]

    def await_messages(self, count, secs=10):
        """Exactly this many messages. That none follows is for the test to prove, by a last message."""
        until(lambda: len(self.messages) >= count, lambda: f"{count} messages: {len(self.messages)} came", secs)
        assert len(self.messages) == count, f"{len(self.messages)} messages instead of {count}: {self.payloads[:20]}"
        return list(self.messages)

    def await_disconnect(self, secs=10):
        """The reason with which the connection ended."""
        return until(lambda: self.disconnects, "the end of the connection", secs)[0]


class Raw:
    """Bytes to and from the broker, and nothing else."""

    def __init__(self, broker, patience_secs=10):
        self.socket = socket.create_connection((broker.host, broker.tcp), patience_secs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def connect(self, client_id, keep_alive=60, version=5):
        """CONNECT with a clean start; reads the CONNACK, which is shorter than 128 bytes, and returns it."""
        head = b"\x00\x04MQTT" + bytes([version, 2]) + keep_alive.to_bytes(2)
        body = head + (b"\x00" if version == 5 else b"") + len(client_id).to_bytes(2) + client_id.encode()
        self.send(b"\x10" + bytes([len(body)]) + body)
        return self.packet()

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, f"the connection ended after {data.hex(' ')}"
            data += more
        return data

    def packet(self):
        """The next packet, if shorter than 128 bytes."""
        head = self.exactly(2)
        return head + self.exactly(head[1])

    def until_end(self):
        """All bytes until the broker ends the connection."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data
