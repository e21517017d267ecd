"""DeepFill v2, led by lines, on photographs at 64 pixels, on a CPU.

Command:  python train.py configs/deepfill_v2_guided_photos64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test
Hardware: 2 CPU cores, 4 GB of memory.
Time:     not measured.
Score:    not measured. (The validation scores are those without a sketch.)

As deepfill_v2_photos64.py, with the edges of the truth inside the hole as a sketch.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    plain = Path(__file__).with_name("deepfill_v2_photos64.py")
    run = runpy.run_path(str(plain))["config"]()
    steps = 1400
    return dataclasses.replace(
        run,
        steps=steps,
        options={**run.options, "guided": True},
        optim=dataclasses.replace(run.optim, decay_steps=steps, ema_decay=0.99),
        eval=dataclasses.replace(run.eval, every=steps // 2),
        checkpoint=dataclasses.replace(run.checkpoint, every=steps // 2),
    )
