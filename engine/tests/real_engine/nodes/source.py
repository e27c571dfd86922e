"""Sends a number per timer tick, until it sent COUNT or is told that it is enough."""
import os

import pyarrow as pa
from dora import Node

node = Node()
sent = 0
with open("source.printed", "w") as printed:
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "tick":
            node.send_output("number", pa.array([sent]))
            sent += 1
            print("sent", sent, flush=True)
            print("sent", sent, file=printed, flush=True)
            if sent == int(os.environ["COUNT"]):
                break
        elif event["type"] == "INPUT" or event["type"] == "STOP":
            break
