"""A made-up camera: at each tick it sends a small grey image with one bright spot that wanders; COUNT images, 0 for no end."""

import os

import numpy as np
import pyarrow as pa
from dora import Node

WIDTH, HEIGHT = 64, 48


def main():
    count = int(os.environ.get("COUNT", "20"))
    node = Node()
    frame = 0
    for event in node:
        if event["type"] == "STOP":
            print(f"camera: stopped after {frame} frames", flush=True)
            return
        if event["type"] != "INPUT":
            continue
        frame += 1
        image = np.full((HEIGHT, WIDTH), 10, dtype=np.uint8)
        x, y = frame * 3 % WIDTH, frame * 2 % HEIGHT
        image[y, x] = 250
        node.send_output("image", pa.array(image.ravel()), {"frame": frame, "width": WIDTH, "height": HEIGHT})
        print(f"camera: frame {frame} sent", flush=True)
        if frame == count:
            print("camera: done", flush=True)
            return


main()
