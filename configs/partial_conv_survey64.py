"""Partial convolutions for all masks of the survey: the weights of the package.

Command:  python train.py configs/partial_conv_survey64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test
Hardware: one CPU core, 2 GB of memory.
Time:     0.55 to 0.65 seconds a step on one core, 50 minutes in all.
Score:    L1 over the hole on 62 photographs, beside harmonic: wide 0.0929 (0.0905),
          narrow 0.0684 (0.0539), super_resolve_2x 0.0316 (0.0345), alternating_lines
          0.0293 (0.0311), half 0.1313 (0.1567), expand 0.1822 (0.1870), free-form
          0.0834 (0.0799), center 0.1160 (0.1198).

As partial_conv_photos64.py, with the six masks of RePaint (Lugmayr et al. 2022) beside
free-form holes and a centre box. One network for all kinds learns each more slowly.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Checkpoint, Config, Eval, Log

SURVEY = ("wide", "narrow", "super_resolve_2x", "alternating_lines", "half", "expand")


def config() -> Config:
    """Returns the run."""
    plain = runpy.run_path(str(Path(__file__).with_name("partial_conv_photos64.py")))
    run = plain["config"]()
    steps, masks = 5000, (*SURVEY, plain["FREE_FORM"], "center")
    return dataclasses.replace(
        run,
        steps=steps,
        data=dataclasses.replace(run.data, masks=masks),
        optim=dataclasses.replace(run.optim, decay_steps=steps),
        eval=Eval(every=2500, images=62, masks=masks),
        checkpoint=Checkpoint(every=500),
        log=Log(samples_every=2500),
    )
