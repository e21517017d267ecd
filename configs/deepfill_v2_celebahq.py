"""DeepFill v2 on CelebA-HQ at 256 pixels: the settings of the official code.

Command:  python train.py configs/deepfill_v2_celebahq.py --workdir runs/celebahq
Hardware: not measured; the author trained on one GPU.
Time:     not measured here.
Score:    not published as numbers.

For the guided network add options.guided=True: edges of the truth lead it.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    first = Path(__file__).with_name("deepfill_v2_places2.py")
    places = runpy.run_path(str(first))["config"]()
    data = dataclasses.replace(
        places.data,
        train="tfds:celeb_a_hq/256/train[1000:]",
        validation="tfds:celeb_a_hq/256/train[:1000]",
    )
    return dataclasses.replace(places, data=data)
