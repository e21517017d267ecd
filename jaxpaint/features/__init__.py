"""Frozen feature networks for perceptual and style losses, read from a user's file.

One file for each network, with two functions:

- `read(path) -> params`: arrays of the file; raises InputError.
- `maps(params, image, dtype) -> list`: feature maps of images `[B, H, W, 3]` in
  [-1, 1], from fine to coarse.
"""

import importlib
from pathlib import Path
from types import ModuleType

from jaxpaint.errors import InputError

_NETWORKS = {".pth": "vgg16", ".pt": "vgg16", ".npz": "efficientnet_lite0"}


def find(path: str) -> ModuleType:
    """Returns the feature network that a file belongs to, by the file's ending.

    Raises:
      InputError: another ending.
    """
    name = _NETWORKS.get(Path(path).suffix.lower())
    if name is None:
        raise InputError(
            f"features is '{path}'; want a .pth file (VGG16 of torchvision) or a .npz "
            "file (EfficientNet-Lite0)"
        )
    return importlib.import_module(f"{__name__}.{name}")
