"""Fails with an error of its own."""
from dora import Node

node = Node()
raise ValueError("the lens is dirty")
