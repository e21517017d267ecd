"""Partial convolutions, first phase, on Places2 at 512 pixels: the paper's settings.

Command:  python train.py configs/partial_conv_places2.py --workdir runs/places2 \
            options.features=vgg16-397923af.pth
Hardware: the paper: one V100 with 16 GB, batch 6.
Time:     the paper: 10 days on ImageNet and Places2; not measured here.
Score:    the paper, after the second phase: PSNR 33.8 to 18.2 dB for holes of 1-10 % to
          50-60 % (quoted from memory, not checked against the paper).

The feature network is torchvision's VGG16, in a file of the user's.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

MASKS = (
    *("irregular_01_10", "irregular_10_20", "irregular_20_30"),
    *("irregular_30_40", "irregular_40_50", "irregular_50_60"),
)


def config() -> Config:
    """Returns the run."""
    return Config(
        method="partial_conv",
        steps=1_000_000,
        options={"levels": 8},
        data=Data(
            train="tfds:places365_small/train",
            validation="tfds:places365_small/validation",
            image_size=512,
            masks=MASKS,
            batch_size=6,
        ),
        optim=Optim(lr=2e-4),
        eval=Eval(every=10_000, images=96, batch_size=6, masks=MASKS),
        checkpoint=Checkpoint(every=5000),
        log=Log(every=100, samples_every=10_000, samples=6),
    )
