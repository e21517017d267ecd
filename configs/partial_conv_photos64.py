"""Partial convolutions on a folder of photographs, at 64 pixels, on a CPU.

python train.py configs/partial_conv_photos64.py --workdir runs/partial_conv_photos64 \
    data.train=PHOTOS/train data.validation=PHOTOS/test

A small network and the pixel losses alone: on 64 pixels the question is whether it
beats the harmonic fill, on free-form holes of 25 % on average and on a centre box.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

FREE_FORM = "free_form(strokes=(2, 4), width=(5, 11))"
"""Holes of 25 % on average: the brush of 12 to 39 pixels is too broad for 64 pixels."""

BOX = "boxes(count=(1, 1), side=(0.375, 0.625))"


def config() -> Config:
    """Returns the run."""
    return Config(
        method="partial_conv",
        steps=6000,
        options={
            "levels": 5,
            "width": 32,
            "max_width": 256,
            "perceptual": 0.0,
            "style": 0.0,
        },
        data=Data(
            image_size=64,
            load_size=96,
            min_crop=2 / 3,
            masks=(FREE_FORM, BOX, "center"),
            batch_size=16,
        ),
        optim=Optim(
            lr=1e-3,
            warmup_steps=200,
            decay_steps=6000,
            final_lr=0.02,
            ema_decay=0.999,
        ),
        eval=Eval(every=500, images=62, masks=(FREE_FORM, "center")),
        checkpoint=Checkpoint(every=500, best="eval/center/hole_l1"),
        log=Log(samples_every=1000),
    )
