"""GLCIC on Places2 at 256 pixels: the paper's settings.

Command:  python train.py configs/glcic_places2.py --workdir runs/glcic
Hardware: one GPU or TPU with 40 GB; with less, optim.microbatches=2 or more, whose
          parts have batch statistics of their own, or several devices, which share
          theirs.
Time:     not measured; the authors report two months on four K80.
Score:    the authors': none in numbers. Reported for mmagic's variant of it (Adam, mean
          absolute error), Places365, boxes: PSNR 23.15, SSIM 0.862.

Batches of 96 matter: users of ports report blurred holes with 8 or 16.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    masks = ("glcic_box",)
    return Config(
        method="glcic",
        steps=500_000,
        options={
            "image_size": 256,
            "completion_steps": 90_000,
            "discriminator_steps": 10_000,
            # The usual mean of Places365, (0.458, 0.441, 0.408), in [-1, 1].
            "mean": (-0.084, -0.118, -0.184),
        },
        data=Data(
            train="tfds:places365_small/train",
            validation="tfds:places365_small/validation",
            image_size=256,
            # 256 pixels of a picture whose short side is drawn from 256 to 384.
            load_size=384,
            min_crop=2 / 3,
            masks=masks,
            batch_size=96,
        ),
        optim=Optim(lr=1.0),
        eval=Eval(every=5000, images=96, batch_size=32, masks=masks),
        checkpoint=Checkpoint(every=5000, best="eval/glcic_box/hole_l1"),
        log=Log(samples_every=5000),
    )
