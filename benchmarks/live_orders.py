"""Order lines as they would come now: those of the carried year, each stamped with the moment it is sent.

`python -m benchmarks.live_orders RATE` runs until SIGTERM, then prints how many it has sent.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

import polars as pl

from connectors import demo_data
from connectors.kafka import producer
from connectors.messages import MessageWriter
from connectors.registry import Registry
from dealeriq.settings import load

_STEP_S = 0.02
_LINES = 200_000


def main(rate: float) -> int:
    """Send `rate` lines a second, in even steps, until told to stop; return how many were sent."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = load()
    ids = Registry(settings.registry).register_all(["orders"])
    writer, out = MessageWriter("orders", ids["orders-value"], "/live"), producer(settings.kafka)
    year = demo_data.orders().frame(0, _LINES)
    began, sent = time.monotonic(), 0
    while not stop.is_set():
        count = int((time.monotonic() - began) * rate) - sent
        if count > 0:
            at = sent % (_LINES - count)
            lines = year[at : at + count].with_columns(
                pl.concat_str(pl.lit(f"live-{sent}-"), "event_id").alias("event_id"),
                event_time=pl.lit(time.time_ns() // 1_000_000, pl.Int64),
            )
            messages = writer.write(lines)
            for key, value, headers in zip(messages.keys, messages.values, messages.headers, strict=True):
                out.produce("orders", value, key=key, headers=headers)
            sent += count
        out.poll(0)
        stop.wait(_STEP_S)
    out.flush(30)
    return sent


if __name__ == "__main__":
    print(main(float(sys.argv[1])), flush=True)
