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
    return dataclasses.replace(run, options={**run.options, "guided": True})
