"""Trains a method: so far it only tells which registered methods can be trained."""

import sys

from jaxpaint import methods


def main() -> int:
    """Prints which methods have a training step; returns the exit code."""
    trainable = [n for n in methods.names() if methods.make(n).train_step is not None]
    print(
        "error: there is no training command yet; methods with a training step: "
        + (", ".join(trainable) or "none"),
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
