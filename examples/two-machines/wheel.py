"""A wheel that turns a bit at each tick; COUNT ticks, 0 for no end."""

import os
import time

import pyarrow as pa
from dora import Node


def main():
    count = int(os.environ.get("COUNT", "20"))
    # Node() returns once the nodes of all machines are there: no wheel begins before every wheel was made.
    print(f"wheel: made at {time.time_ns() // 1_000_000}", flush=True)
    node = Node()
    print(f"wheel: begins at {time.time_ns() // 1_000_000}", flush=True)
    turned = 0
    for event in node:
        if event["type"] == "STOP":
            print(f"wheel: stopped after {turned} ticks", flush=True)
            return
        if event["type"] != "INPUT":
            continue
        turned += 1
        node.send_output("turns", pa.array([turned * 0.25]), {"tick": turned})
        print(f"wheel: tick {turned}", flush=True)
        if turned == count:
            return


main()
