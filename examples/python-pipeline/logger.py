"""Prints where the spots are, counts frames that did not arrive, and fails when one is out of order.

Frames that were sent before the detector was linked to the camera may be missing: dora publishes without waiting for receivers.
"""

from dora import Node


def main():
    node = Node()
    last, missing = 0, 0
    for event in node:
        if event["type"] == "STOP":
            print(f"logger: frames up to {last}, {missing} missing", flush=True)
        if event["type"] != "INPUT":
            continue
        frame = event["metadata"]["frame"]
        if frame <= last:
            raise SystemExit(f"frame {frame} came after {last}")
        missing += frame - last - 1
        last = frame
        y, x = event["value"].to_pylist()[:2]
        print(f"logger: frame {frame} spot at {x},{y}", flush=True)


main()
