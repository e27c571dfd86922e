"""Prints what it gets, on both streams, and says when it has enough. Keeps its own record of what it printed."""
import sys

import pyarrow as pa
from dora import Node

node = Node()
got = 0
with open("sink.printed", "w") as printed:
    for event in node:
        if event["type"] == "INPUT":
            got += 1
            for stream in (sys.stdout, printed):
                print("got", event["value"][0].as_py(), file=stream, flush=True)
            for stream in (sys.stderr, printed):
                print("on stderr", got, file=stream, flush=True)
            if got >= 20:
                # Said again with every further message: dora may lose messages while its nodes find each other.
                node.send_output("enough", pa.array([got]))
