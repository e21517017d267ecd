"""Partial convolutions, first phase, on CelebA-HQ at 512 pixels: the paper's settings.

Command:  python train.py configs/partial_conv_celebahq.py --workdir runs/celebahq \
            options.features=vgg16-397923af.pth
Hardware: the paper: one V100 with 16 GB, batch 6.
Time:     the paper: 3 days; not measured here.
Score:    not published as numbers.

The second phase: the same with `init_from=runs/celebahq optim.lr=5e-5
options.freeze_encoder_norm=True` and another --workdir.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    first = Path(__file__).with_name("partial_conv_places2.py")
    places = runpy.run_path(str(first))["config"]()
    data = dataclasses.replace(
        places.data,
        train="tfds:celeb_a_hq/512/train[1000:]",
        validation="tfds:celeb_a_hq/512/train[:1000]",
    )
    return dataclasses.replace(places, data=data, steps=300_000)
