"""DeepFill v2, led by lines, on photographs at 64 pixels, on a CPU.

Command:  python train.py configs/deepfill_v2_guided_photos64.py --workdir runs/first \
            data.train=PHOTOS/train data.validation=PHOTOS/test
          python train.py configs/deepfill_v2_guided_photos64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test \
            init_from=runs/first steps=2800 optim.decay_steps=2800 optim.lr=8e-4 \
            optim.warmup_steps=50 optim.ema_decay=0.995
Hardware: 2 CPU cores, 4 GB of memory.
Time:     7 and 22 minutes.
Score:    L1 over the hole on 62 photographs without a sketch, free-form and box, as
          drawn: 0.1146 and 0.1389 after the first run, 0.1026 and 0.1371 after the
          second. benchmarks/sketch.py, centre box, blended: from a line to the next
          edge of the result 3.31 pixels with the sketch and 4.53 without, 42.6 % and
          30.6 % of the lines have one within a pixel.

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
    steps = 1000
    return dataclasses.replace(
        run,
        steps=steps,
        options={**run.options, "guided": True},
        optim=dataclasses.replace(run.optim, decay_steps=steps, ema_decay=0.99),
        eval=dataclasses.replace(run.eval, every=steps),
        checkpoint=dataclasses.replace(run.checkpoint, every=steps),
    )
