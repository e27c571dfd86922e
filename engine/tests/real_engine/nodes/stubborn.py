"""Ignores everything that asks it to end."""
import signal
import time

from dora import Node

node = Node()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("stubborn", flush=True)
while True:
    time.sleep(1)
