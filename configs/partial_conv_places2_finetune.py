"""Partial convolutions, second phase, on Places2 at 512 pixels: the paper's settings.

Command:  python train.py configs/partial_conv_places2_finetune.py \
            --workdir runs/places2_finetune init_from=runs/places2 \
            options.features=vgg16-397923af.pth
Hardware: as configs/partial_conv_places2.py, whose run it starts from.
Time:     the paper: within a day; not measured here.
Score:    see there.

The norms of the encoder rest: their batch statistics would count hole pixels.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    first = Path(__file__).with_name("partial_conv_places2.py")
    start = runpy.run_path(str(first))["config"]()
    return dataclasses.replace(
        start,
        steps=100_000,
        options={**start.options, "freeze_encoder_norm": True},
        optim=dataclasses.replace(start.optim, lr=5e-5),
    )
