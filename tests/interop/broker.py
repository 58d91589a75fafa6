"""Starts a broker with every kind of listener in a temporary directory, and stops it again.

`Dunlin` is the broker under test. `Reference` is Debian's mosquitto behind the same face: the suites
are run against it when they are changed, so that a failing case is known to blame the broker.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_SECS = 15
STOP_SECS = 15

LISTENERS = """\
shards = 2

[[listeners]]
name = "tcp"
kind = "tcp"
address = "127.0.0.1:{tcp}"

[[listeners]]
name = "tls"
kind = "tls"
address = "127.0.0.1:{tls}"
[listeners.tls]
certificate = "{certs}/server.pem"
key = "{certs}/server.key"

[[listeners]]
name = "mtls"
kind = "tls"
address = "127.0.0.1:{mtls}"
[listeners.tls]
certificate = "{certs}/server.pem"
key = "{certs}/server.key"
client_ca = "{certs}/ca.pem"
client_certificate = "required"

[[listeners]]
name = "ws"
kind = "ws"
address = "127.0.0.1:{ws}"

[[listeners]]
name = "wss"
kind = "wss"
address = "127.0.0.1:{wss}"
[listeners.tls]
certificate = "{certs}/server.pem"
key = "{certs}/server.key"

[[listeners]]
name = "unix"
kind = "unix"
path = "{unix}"
"""

MOSQUITTO = """\
per_listener_settings false
allow_anonymous true
persistence false
# As root it would drop its privileges, and with them the way to its certificates.
user root
max_queued_messages 0
max_inflight_messages 1024
set_tcp_nodelay true
log_dest stderr

listener {tcp} 127.0.0.1

listener 0 {unix}

listener {tls} 127.0.0.1
certfile {certs}/server.pem
keyfile {certs}/server.key

listener {mtls} 127.0.0.1
certfile {certs}/server.pem
keyfile {certs}/server.key
cafile {certs}/ca.pem
require_certificate true
"""

PORTS = ("tcp", "tls", "mtls", "ws", "wss")


def free_ports(count):
    """Ports that are free now; all are held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


class Broker:
    """One running broker. `endpoints` says where each listener is, as the suites read it."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.certs = self.directory / "certs"
        self.log_path = self.directory / "broker.log"
        self.config = None
        self.process = None
        self.helpers = []
        self.endpoints = dict(zip(PORTS, free_ports(len(PORTS))))
        self.endpoints |= {
            "host": "127.0.0.1",
            "unix": str(self.directory / "broker.sock"),
            "ca": str(self.certs / "ca.pem"),
            "client_cert": str(self.certs / "client.pem"),
            "client_key": str(self.certs / "client.key"),
        }

    def start(self):
        """Makes certificates and configuration, and starts the broker: see `resume`."""
        self.make_certificates()
        self.config = self.write_config()
        self.resume()

    def resume(self):
        """Starts the broker with what is in its directory; returns once all listeners accept."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(self.config), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        self.start_helpers()
        deadline = time.monotonic() + START_SECS
        for port in PORTS:
            self._await_listener(lambda p=port: socket.create_connection(("127.0.0.1", self.endpoints[p]), 1), port, deadline)
        self._await_listener(self._connect_unix, "unix", deadline)
        (self.directory / "endpoints.json").write_text(json.dumps(self.endpoints))

    def stop(self, by=signal.SIGTERM):
        """Sends the signal and returns the exit code; a broker that does not end is killed and said to hang."""
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        self.helpers = []
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            return self.process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"still running {STOP_SECS} s after {by.name}"

    def log(self):
        """All that the broker wrote to its output so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start_helpers(self):
        """Nothing but the broker is needed, unless a subclass says otherwise."""

    def _connect_unix(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.endpoints["unix"])
        return connection

    def _await_listener(self, connect, name, deadline):
        while True:
            try:
                connect().close()
                return
            except OSError as error:
                ended = self.process.poll()
                if ended is not None:
                    raise RuntimeError(f"the broker ended with code {ended} at start:\n{self.log()}") from error
                if time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"listener {name} does not accept:\n{self.log()}") from error
                time.sleep(0.02)


class Dunlin(Broker):
    """The broker under test."""

    def __init__(self, directory, binary):
        super().__init__(directory)
        self.binary = str(binary)

    def make_certificates(self):
        subprocess.run([self.binary, "certs", str(self.certs)], check=True, stdout=subprocess.DEVNULL)

    def write_config(self):
        config = self.directory / "dunlin.toml"
        config.write_text(LISTENERS.format(certs=self.certs, **self.endpoints))
        return config

    def command(self, config):
        data = self.directory / "data"
        return [self.binary, "serve", "--config", str(config), "--data-dir", str(data), "--log", "info"]


class Reference(Broker):
    """Debian's mosquitto. It is built without WebSocket there, so a relay stands in front of it."""

    def __init__(self, directory, node, modules):
        super().__init__(directory)
        self.binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.node = node
        self.modules = modules

    def make_certificates(self):
        self.certs.mkdir(parents=True)

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, cwd=self.certs, capture_output=True)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
        names = {"server": "subjectAltName=DNS:localhost,IP:127.0.0.1", "client": "extendedKeyUsage=clientAuth"}
        for name, extension in names.items():
            (self.certs / f"{name}.ext").write_text(extension)
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip

    def write_config(self):
        config = self.directory / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(certs=self.certs, **self.endpoints))
        return config

    def command(self, config):
        return [self.binary, "-c", str(config)]

    def start_helpers(self):
        relay = Path(__file__).parent / "js" / "relay.mjs"
        environment = os.environ | {"INTEROP_MODULES": str(self.modules), "INTEROP_RELAY": json.dumps(
            {key: self.endpoints[key] for key in ("ws", "wss", "tcp")} | {"certs": str(self.certs)})}  # fmt: skip
        self.helpers.append(subprocess.Popen([self.node, str(relay)], env=environment, stdin=subprocess.DEVNULL))
