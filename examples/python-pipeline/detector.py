"""Finds the bright spots of each image."""

import numpy as np
import pyarrow as pa
from dora import Node

BRIGHT = 200


def main():
    node = Node()
    for event in node:
        if event["type"] == "STOP":
            print("detector: no more images", flush=True)
        if event["type"] != "INPUT":
            continue
        about = event["metadata"]
        image = event["value"].to_numpy().reshape(about["height"], about["width"])
        spots = np.argwhere(image > BRIGHT)
        print(f"detector: frame {about['frame']} has {len(spots)} spot(s)", flush=True)
        node.send_output("spots", pa.array(spots.ravel()), {"frame": about["frame"]})


main()
