"""Features of the pictures of an evaluation, each picture described once.

What was described is kept beside the results, under a checksum of the pixels, so that
an evaluation that goes on or grows describes only what is new in it.
"""

import functools
import hashlib
import zipfile
from pathlib import Path

import jax
import numpy as np

from jaxpaint.evaluation import scores
from jaxpaint.evaluation.scores import Network
from jaxpaint.features import efficientnet_lite0, inception_v3
from jaxpaint.files import replacing


def lite0(path: Path | str) -> Network:
    """Returns EfficientNet-Lite0 out of a file.

    Raises:
      InputError: a file that cannot be read, or that lacks an array.
    """
    params = efficientnet_lite0.read_classifier(path)
    describe = functools.partial(jax.jit(efficientnet_lite0.describe), params)
    checksum = _checksum(Path(path).read_bytes())
    return Network("lite0", "kd_lite0", "fd_lite0", True, checksum, describe)


def inception(path: Path | str) -> Network:
    """Returns the Inception-V3 of FID and KID out of the file of pytorch-fid.

    Raises:
      InputError: a file that cannot be read, or whose layers are others.
    """
    params = inception_v3.read(path)
    describe = functools.partial(jax.jit(inception_v3.describe), params)
    checksum = _checksum(Path(path).read_bytes())
    return Network("inception", "kid", "fid", False, checksum, describe)


def features(network: Network, pictures: np.ndarray, kept: Path) -> np.ndarray:
    """Returns float32 features `[N, D]` of uint8 pictures `[N, S, S, 3]`.

    Those in the file `kept` are taken from there, others computed and added to it.
    """
    network_of, known = _read(kept)
    if network_of != network.checksum:
        known = {}
    sums = [_checksum(np.ascontiguousarray(p).tobytes()) for p in pictures]
    new = {s: index for index, s in enumerate(sums) if s not in known}
    if new:
        found = scores.features(network.describe, pictures[list(new.values())])
        known |= dict(zip(new, found, strict=True))
        chosen = list(dict.fromkeys(sums))
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as file:
            np.savez(
                file,
                network=np.array(network.checksum),
                sums=np.array(chosen),
                features=np.stack([known[s] for s in chosen]),
            )
    return np.stack([known[s] for s in sums])


def _read(kept: Path) -> tuple[str, dict[str, np.ndarray]]:
    try:
        with np.load(kept) as file:
            known = dict(zip(file["sums"].tolist(), file["features"], strict=True))
            return str(file["network"]), known
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return "", {}  # no such file, or one that is written anew


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
