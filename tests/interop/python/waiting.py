"""Waiting for a condition with a deadline. Nothing in these suites sleeps for a fixed time."""

import time

PATIENCE_SECS = 10


def until(condition, what, secs=PATIENCE_SECS):
    """The first true value of `condition()`; fails with `what` when there is none in time."""
    deadline = time.monotonic() + secs
    while True:
        value = condition()
        if value:
            return value
        # `what` may be a function, for messages that tell how far it got.
        assert time.monotonic() < deadline, f"not within {secs} s: {what() if callable(what) else what}"
        time.sleep(0.005)
