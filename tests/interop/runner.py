"""Runs every suite against one broker, then stops the broker, and tells what passed. See README.md."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

from broker import Dunlin, Reference

HERE = Path(__file__).resolve().parent
SUITE_SECS = 120
LOG_LINES_SHOWN = 80


class Result:
    """Counts of one suite."""

    def __init__(self, name, passed=0, failed=0, skipped=0, secs=0.0):
        self.name, self.passed, self.failed, self.skipped, self.secs = name, passed, failed, skipped, secs


def run_pytest(name, files, environment, directory, extra):
    """Runs pytest on the files; its JUnit report has the counts."""
    report = directory / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "-rx",
               f"--junitxml={report}", *map(str, files), *extra]  # fmt: skip
    ended = call(command, environment, HERE / "python")
    if not report.exists():
        return Result(name, failed=1)
    suite = xml.parse(report).getroot().find("testsuite")
    total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    if ended != 0 and failed == 0 and ended != 5:
        failed = 1
    return Result(name, max(0, total - failed - skipped), failed, skipped)


def run_node(name, files, environment, directory, node, extra):
    """Runs Node's own test runner on the files; the last lines of its TAP output have the counts."""
    report = directory / f"{name}.tap"
    command = [node, "--test", "--test-reporter=spec", "--test-reporter-destination=stdout",
               "--test-reporter=tap", f"--test-reporter-destination={report}", *extra, *map(str, files)]  # fmt: skip
    ended = call(command, environment, HERE / "js")
    counts = dict(re.findall(r"^# (pass|fail|cancelled|skipped|todo) (\d+)$", report.read_text(), re.M)) if report.exists() else {}
    failed = int(counts.get("fail", 0)) + int(counts.get("cancelled", 0))
    if ended != 0 and failed == 0:
        failed = 1
    return Result(name, int(counts.get("pass", 0)), failed, int(counts.get("skipped", 0)) + int(counts.get("todo", 0)))


def call(command, environment, directory):
    """The exit code of the command, whose output is ours."""
    sys.stdout.flush()
    try:
        return subprocess.run(command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, timeout=SUITE_SECS).returncode
    except subprocess.TimeoutExpired:
        print(f"stopped: not done after {SUITE_SECS} s", flush=True)
        return "timeout"


def arguments():
    parser = argparse.ArgumentParser(prog="tests/interop/run", description="Real MQTT clients against the broker.")
    parser.add_argument("suites", nargs="*", help="mosquitto, paho, process, restart, mqttjs (default: all)")
    parser.add_argument("--against", choices=("dunlin", "mosquitto"), default="dunlin",
                        help="mosquitto: check the suites themselves against a reference broker")  # fmt: skip
    parser.add_argument("--binary", default=os.environ.get("DUNLIN"), help="the dunlin program (default: $DUNLIN)")
    parser.add_argument("--only", help="run cases whose name matches this")
    parser.add_argument("--node", default="node", help="the Node.js program")
    parser.add_argument("--modules", required=True, help="directory whose node_modules has MQTT.js (run passes it)")
    return parser.parse_args()


def main():
    options = arguments()
    suites = {
        "mosquitto": ("pytest", sorted((HERE / "python").glob("test_mosquitto*.py"))),
        "paho": ("pytest", sorted((HERE / "python").glob("test_paho*.py"))),
        "process": ("pytest", [HERE / "python" / "test_process.py"]),
        "restart": ("pytest", [HERE / "python" / "test_restart.py"]),
        "mqttjs": ("node", sorted((HERE / "js").glob("*.test.mjs"))),
    }
    unknown = set(options.suites) - set(suites)
    if unknown:
        sys.exit(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(suites)}")
    with tempfile.TemporaryDirectory(prefix="dunlin-interop-") as temporary:
        directory = Path(temporary)
        results = run_suites(options, {name: suites[name] for name in options.suites or suites}, directory)
    print_table(results)
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


def run_suites(options, suites, directory):
    if options.against == "mosquitto":
        broker = Reference(directory / "broker", options.node, options.modules)
    else:
        if not options.binary:
            sys.exit("no broker: set DUNLIN or give --binary")
        broker = Dunlin(directory / "broker", Path(options.binary).resolve())
    broker.directory.mkdir()
    environment = os.environ | {
        "INTEROP_ENDPOINTS": str(broker.directory / "endpoints.json"),
        "INTEROP_BROKER": options.against,
        "INTEROP_BINARY": broker.binary,
        "INTEROP_MODULES": str(options.modules),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(HERE),
    }
    results = []
    try:
        broker.start()
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"FAILED start: {error}")
        broker.stop()
        return [Result("start", failed=1)]
    try:
        for name, (kind, files) in suites.items():
            print(f"\n--- {name}", flush=True)
            started = time.monotonic()
            if kind == "pytest":
                extra = ["-k", options.only] if options.only else []
                result = run_pytest(name, files, environment, directory, extra)
            else:
                extra = [f"--test-name-pattern={options.only}"] if options.only else []
                result = run_node(name, files, environment, directory, options.node, extra)
            result.secs = time.monotonic() - started
            results.append(result)
            if broker.process.poll() is not None:
                print(f"the broker ended during suite {name}")
                break
    finally:
        code = broker.stop()
    results.append(judge_stop(broker, code))
    if any(result.failed for result in results):
        print(f"\n--- the broker's log, last {LOG_LINES_SHOWN} lines")
        print("\n".join(broker.log().splitlines()[-LOG_LINES_SHOWN:]))
    return results


def judge_stop(broker, code):
    """The broker must have lived to the end, without a panic, and must stop with code 0 on SIGTERM."""
    complaints = []
    if code != 0:
        complaints.append(f"exit code after SIGTERM: {code}")
    complaints += [f"panic in the log: {line}" for line in broker.log().splitlines() if "panicked at" in line]
    for complaint in complaints:
        print(f"FAILED stop: {complaint}")
    return Result("stop", passed=0 if complaints else 1, failed=1 if complaints else 0)


def print_table(results):
    print(f"\n{'suite':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for r in results:
        print(f"{r.name:<12}{r.passed:>8}{r.failed:>8}{r.skipped:>9}{r.secs:>9.1f}")


if __name__ == "__main__":
    main()
