"""Context Encoder, whole-image model for holes of any shape, at 128 pixels.

Command:  python train.py configs/context_encoder_random_places2.py \
            --workdir runs/random
Hardware: one GPU or TPU with 16 GB.
Time:     not measured.
Score:    none published: no weights of this model were ever released, and users of the
          official code report poor results with it.

Two settings therefore differ from the official code, since they may explain it: every
picture has a mask of its own, and nothing is learned where pixels are known. As there:
`options.shared_mask=True options.known_weight=1`; with its option useOverlapPred, 10.
The official README advises 64 pixels: `options.image_size=64 data.image_size=64`.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    masks = ("random_region", "random_blocks")
    return Config(
        method="context_encoder",
        steps=200_000,
        options={"image_size": 128, "whole_image": True},
        data=Data(
            train="tfds:places365_small/train",
            validation="tfds:places365_small/validation",
            image_size=128,
            load_size=256,
            min_crop=0.5,
            masks=masks,
            batch_size=64,
        ),
        optim=Optim(lr=2e-4, b1=0.5, ema_decay=0.999),
        eval=Eval(every=5000, images=96, batch_size=32, masks=masks),
        checkpoint=Checkpoint(every=5000, best="eval/random_region/hole_l1"),
        log=Log(samples_every=5000),
    )
