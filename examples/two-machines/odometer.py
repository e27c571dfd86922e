"""Turns the wheel's turns into metres."""

from dora import Node

CIRCUMFERENCE = 0.66


def main():
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            turns = event["value"][0].as_py()
            print(f"odometer: tick {event['metadata']['tick']}, {turns * CIRCUMFERENCE:.3f} m", flush=True)


main()
