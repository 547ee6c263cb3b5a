"""`polaris train` with the modules of this folder: `train_here.py [CONFIG] [--section.key=value ...]`."""

import sys

from polaris.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
