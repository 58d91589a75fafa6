"""`mosquitto_pub` and `mosquitto_sub` as processes."""

import json
import subprocess
import threading

from waiting import until

VERSIONS = {3: "mqttv31", 4: "mqttv311", 5: "mqttv5"}
PROCESS_SECS = 20


def pairs_if_repeated(pairs):
    """mosquitto_sub writes user properties as one JSON object, even if a key is there twice."""
    members = dict(pairs)
    return members if len(members) == len(pairs) else pairs


class Shell:
    """Starts the programs towards one broker and kills at the end what still runs."""

    def __init__(self, broker):
        self.broker = broker
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for subscriber in self.running:
            subscriber.kill()

    def route(self, transport):
        """The options that reach the broker over the transport."""
        tcp = ["-h", self.broker.host]
        match transport:
            case "tcp":
                return [*tcp, "-p", str(self.broker.tcp)]
            case "tls":
                return [*tcp, "-p", str(self.broker.tls), "--cafile", self.broker.ca]
            case "mtls":
                identity = ["--cert", self.broker.client_cert, "--key", self.broker.client_key]
                return [*tcp, "-p", str(self.broker.mtls), "--cafile", self.broker.ca, *identity]
            case "unix":
                return ["--unix", self.broker.unix]
        raise ValueError(transport)

    def pub(self, *arguments, version=5, transport="tcp", stdin=None, check=True):
        """Runs `mosquitto_pub` to its end."""
        command = ["mosquitto_pub", *self.route(transport), "-V", VERSIONS[version], *map(str, arguments)]
        ended = subprocess.run(command, input=stdin, capture_output=True, timeout=PROCESS_SECS, text=True)
        if check:
            assert ended.returncode == 0, f"{command}: {ended.returncode}: {ended.stdout}{ended.stderr}"
            # It exits with 0 even if the broker refuses the message, and says so on stderr alone.
            assert not ended.stderr, f"{command}: {ended.stderr}"
        return ended

    def sub(self, *arguments, version=5, transport="tcp", subscribed=True):
        """Starts `mosquitto_sub` and returns once its subscriptions are acknowledged."""
        command = ["mosquitto_sub", *self.route(transport), "-V", VERSIONS[version], "-d", "-F", "%j", *map(str, arguments)]
        subscriber = Subscriber(command)
        self.running.append(subscriber)
        if subscribed:
            until(lambda: any("Subscribed (mid" in line for line in subscriber.lines), subscriber.story)
        return subscriber

    def drain(self, *arguments, **options):
        """Runs `mosquitto_sub` until it ends by itself (options such as -C, -E, -W); its messages and exit code."""
        subscriber = self.sub(*arguments, subscribed=False, **options)
        code = subscriber.wait()
        return subscriber.messages, code


class Subscriber:
    """A running `mosquitto_sub`, whose output is read as it comes."""

    def __init__(self, command):
        self.command = command
        self.lines = []
        # Its output is a pipe and would be held back in blocks without stdbuf.
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def messages(self):
        """What arrived so far, as mosquitto_sub's JSON."""
        return [json.loads(line, object_pairs_hook=pairs_if_repeated) for line in list(self.lines) if line.startswith("{")]

    @property
    def payloads(self):
        """The payloads that arrived so far."""
        return [message["payload"] for message in self.messages]

    def await_messages(self, count):
        """Exactly this many messages. That none follows is for the test to prove, by a last message."""
        until(lambda: len(self.messages) >= count, lambda: f"{count} messages; {self.story()}")
        messages = self.messages
        assert len(messages) == count, f"{len(messages)} messages instead of {count}: {messages}"
        return messages

    def story(self):
        """What ran and what it said, for a failure."""
        return f"{' '.join(self.command)}\n" + "\n".join(line[:300] for line in self.lines[-30:])

    def wait(self):
        """The exit code, after all output has been read."""
        code = self.process.wait(PROCESS_SECS)
        self.reader.join(PROCESS_SECS)
        return code

    def terminate(self):
        """A clean end: mosquitto_sub sends DISCONNECT."""
        self.process.terminate()
        return self.wait()

    def kill(self):
        """An end without DISCONNECT."""
        self.process.kill()
        self.wait()
