"""DeepFill v1 on CelebA-HQ at 256 pixels: the settings of the official code.

Command:  python train.py configs/deepfill_v1_celebahq.py --workdir runs/celebahq
Hardware: not measured; the author trained on one GTX 1080 Ti.
Time:     not measured here.
Score:    not published as numbers.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    first = Path(__file__).with_name("deepfill_v1_places2.py")
    places = runpy.run_path(str(first))["config"]()
    data = dataclasses.replace(
        places.data,
        train="tfds:celeb_a_hq/256/train[1000:]",
        validation="tfds:celeb_a_hq/256/train[:1000]",
    )
    return dataclasses.replace(places, data=data)
