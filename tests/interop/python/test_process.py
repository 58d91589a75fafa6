"""The broker as a process: how it stops, and how it says that it cannot start."""

import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker import Dunlin, Reference
from clients import Raw

REFERENCE = os.environ["INTEROP_BROKER"] == "mosquitto"
START_SECS = 15

only_dunlin = pytest.mark.skipif(REFERENCE, reason="about our own command line")


@pytest.fixture
def own(tmp_path):
    """A broker of the test's own, which it may stop."""
    binary = os.environ["INTEROP_BINARY"]
    made = Reference(tmp_path, "node", os.environ["INTEROP_MODULES"]) if REFERENCE else Dunlin(tmp_path, binary)
    made.start()
    yield made
    if made.process.poll() is None:
        made.stop(signal.SIGKILL)


def raw(broker):
    """A raw connection to the broker's plain listener."""
    return Raw(SimpleNamespace(**broker.endpoints))


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
@pytest.mark.reference_deviates("it closes connections of MQTT 5 without DISCONNECT 0x8B when it is stopped")
def test_stop_tells_clients_and_ends_with_code_0(own, by):
    with raw(own) as modern, raw(own) as older:
        modern.connect("modern")
        older.connect("older", version=4)
        assert own.stop(by) == 0, own.log()
        goodbye = modern.until_end()
        assert goodbye[:1] == b"\xe0" and goodbye[2] == 0x8B, goodbye.hex(" ")
        # MQTT 3.1.1 knows no DISCONNECT from the server.
        assert older.until_end() == b""


def test_stop_leaves_no_unix_socket_behind(own):
    assert own.stop() == 0
    assert not Path(own.endpoints["unix"]).exists()


@only_dunlin
def test_address_in_use_is_said_with_the_address(own):
    address = f"127.0.0.1:{own.endpoints['tcp']}"
    second = subprocess.run(
        [own.binary, "serve", "--listen", address, "--data-dir", str(own.directory / "second")],
        capture_output=True, text=True, timeout=START_SECS, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert second.returncode not in (0, 101, -signal.SIGABRT), second.stderr
    said = second.stdout + second.stderr
    assert address in said and re.search("in use", said), said


@only_dunlin
def test_missing_certificate_is_said_with_its_file(own):
    config = own.directory / "broken.toml"
    config.write_text((own.directory / "dunlin.toml").read_text().replace("server.pem", "missing.pem"))
    second = subprocess.run(
        [own.binary, "serve", "--config", str(config), "--data-dir", str(own.directory / "second")],
        capture_output=True, text=True, timeout=START_SECS, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert second.returncode not in (0, 101, -signal.SIGABRT), second.stderr
    assert "missing.pem" in second.stdout + second.stderr


@only_dunlin
def test_open_listener_without_authentication_is_refused(own):
    refused = subprocess.run(
        [own.binary, "serve", "--listen", "0.0.0.0:0", "--data-dir", str(own.directory / "second")],
        capture_output=True, text=True, timeout=START_SECS, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert refused.returncode not in (0, 101, -signal.SIGABRT), refused.stderr
    assert "anonymous" in refused.stdout + refused.stderr
