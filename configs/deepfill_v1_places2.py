"""DeepFill v1 on Places2 at 256 pixels: the settings of the official code.

Command:  python train.py configs/deepfill_v1_places2.py --workdir runs/places2
Hardware: the author: one GTX 1080 Ti.
Time:     the author: 5 days, about 150,000 steps of the generator; not measured here.
Score:    the paper: PSNR 18.91 dB on a central hole of 128 x 128 (quoted from memory,
          not checked against the paper).

A step is one batch: the generator learns in one of six.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

CRITIC_STEPS = 5


def config() -> Config:
    """Returns the run."""
    return Config(
        method="deepfill_v1",
        steps=150_000 * (CRITIC_STEPS + 1),
        options={"image_size": 256, "critic_steps": CRITIC_STEPS},
        data=Data(
            train="tfds:places365_small/train",
            validation="tfds:places365_small/validation",
            image_size=256,
            masks=("deepfill_box",),
            flip=False,
            batch_size=16,
        ),
        optim=Optim(lr=1e-4, b1=0.5, b2=0.9),
        eval=Eval(every=60_000, images=96, masks=("center", "deepfill_box")),
        checkpoint=Checkpoint(every=6000),
        log=Log(every=120, samples_every=12_000),
    )
