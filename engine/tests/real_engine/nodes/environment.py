"""Prints its environment as JSON."""
import json
import os

from dora import Node

node = Node()
print(json.dumps({"environment": dict(os.environ)}), flush=True)
