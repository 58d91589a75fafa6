"""Real clients over a broker that is killed and started again: what they were promised is there."""

import os
import signal
from types import SimpleNamespace

import pytest

import tools
from broker import Dunlin
from clients import Pool

pytestmark = pytest.mark.skipif(
    os.environ["INTEROP_BROKER"] == "mosquitto", reason="it writes what it acknowledges some time later"
)
VERSIONS = [pytest.param(4, id="v311"), pytest.param(5, id="v5")]


@pytest.fixture
def own(tmp_path):
    """A broker of the test's own, which it may kill."""
    made = Dunlin(tmp_path, os.environ["INTEROP_BINARY"])
    made.start()
    yield made
    made.stop(signal.SIGKILL)


def clients(broker):
    """mosquitto's programs towards a broker."""
    return tools.Shell(SimpleNamespace(**broker.endpoints))


def restart(broker, by):
    broker.stop(by)
    broker.resume()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("version", VERSIONS)
def test_mosquitto_gets_what_was_queued_before_and_after(own, name, version, by):
    session = ["-i", name, "-c", "-t", f"{name}/#", "-q", 2]
    session += ["-x", 3600] if version == 5 else []
    with clients(own) as shell:
        shell.sub(*session, version=version).kill()
        for number in range(5):
            shell.pub("-t", f"{name}/{number}", "-m", number, "-q", 1 + number % 2, version=version)
        shell.pub("-t", f"{name}/retained", "-m", "kept", "-r", "-q", 1, version=version)
    restart(own, by)
    with clients(own) as shell:
        shell.pub("-t", f"{name}/5", "-m", 5, "-q", 1, version=version)
        got, _ = shell.drain(*session, "-C", 8, "-W", 5, version=version)
        # It shows a QoS 2 message when that is released, and so behind later ones of QoS 1. It subscribes again
        # and so gets the retained message once more.
        assert sorted(m["payload"] for m in got) == ["0", "1", "2", "3", "4", "5", "kept", "kept"]
        kept, _ = shell.drain("-t", f"{name}/retained", "-C", 1, "-W", 5, version=version)
        assert [(m["payload"], m["retain"]) for m in kept] == [("kept", 1)]


@pytest.mark.parametrize("version", VERSIONS)
def test_paho_goes_on_with_its_session(own, name, version):
    with Pool(SimpleNamespace(**own.endpoints)) as pool:
        expiry = {"connect": {"SessionExpiryInterval": 3600}} if version == 5 else {}
        client = pool.connect(name, version=version, clean=False, **expiry)
        client.subscribe(f"{name}/#", qos=2)
        client.cut()
        publisher = pool.connect(version=version)
        for number in range(3):
            publisher.publish(f"{name}/{number}", str(number), qos=2)
        restart(own, signal.SIGKILL)
        again = pool.connect(name, version=version, clean=False, **expiry)
        assert again.session_present
        again.await_messages(3)
        assert again.payloads == [b"0", b"1", b"2"]
