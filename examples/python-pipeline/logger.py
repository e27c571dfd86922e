"""Prints where the spots are, and fails when a frame is missing or out of order."""

from dora import Node


def main():
    node = Node()
    last = 0
    for event in node:
        if event["type"] == "STOP":
            print(f"logger: {last} frames, none missing", flush=True)
        if event["type"] != "INPUT":
            continue
        frame = event["metadata"]["frame"]
        if frame != last + 1:
            raise SystemExit(f"frame {frame} came after {last}")
        last = frame
        y, x = event["value"].to_pylist()[:2]
        print(f"logger: frame {frame} spot at {x},{y}", flush=True)


main()
