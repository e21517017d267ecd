"""Trains a method: `python train.py` is `jaxpaint train`."""

import sys

from jaxpaint.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    sys.exit(main())
