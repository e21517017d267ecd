"""Inpaints pictures: `python sample.py` is `jaxpaint sample`."""

import sys

from jaxpaint.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "sample")
    sys.exit(main())
