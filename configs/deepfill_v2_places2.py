"""DeepFill v2 on Places2 at 256 pixels: the settings of the official code.

Command:  python train.py configs/deepfill_v2_places2.py --workdir runs/places2
Hardware: the author: one GPU.
Time:     the author: about 5 days; not measured here.
Score:    the paper, validation set: L1 9.1 % and L2 1.6 % on free-form holes, relative
          errors by a formula of its own (quoted from memory, not checked).
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    return Config(
        method="deepfill_v2",
        steps=1_000_000,
        options={"image_size": 256},
        data=Data(
            train="tfds:places365_small/train",
            validation="tfds:places365_small/validation",
            image_size=256,
            masks=("free_form_box",),
            flip=False,
            batch_size=16,
        ),
        optim=Optim(lr=1e-4, b1=0.5, b2=0.999),
        eval=Eval(every=20_000, images=96, masks=("free_form", "center")),
        checkpoint=Checkpoint(every=4000),
        log=Log(every=100, samples_every=10_000),
    )
