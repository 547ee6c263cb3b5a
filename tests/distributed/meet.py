"""A rank that meets the others, after so many seconds: `meet.py SECONDS`."""

import sys
import time

from polaris.distributed import mesh

if __name__ == "__main__":
    time.sleep(float(sys.argv[1]))
    world = mesh.start()
    print(world.gather([world.rank]))
    mesh.stop()
