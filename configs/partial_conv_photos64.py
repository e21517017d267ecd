"""Partial convolutions on a folder of photographs, at 64 pixels, on a CPU.

Command:  python train.py configs/partial_conv_photos64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test
Hardware: 2 CPU cores, 4 GB of memory.
Time:     32 minutes, while other work took a part of the cores.
Score:    L1 over the hole on 62 photographs, free-form holes and box: 0.0757 and 0.1112
          (PSNR 25.64 and 22.83); harmonic 0.0799 and 0.1198 (25.65 and 22.56); mean
          color 0.1733 and 0.1815. The last step is the best one.

A small network and the pixel losses alone: on 64 pixels the question is whether it
beats the harmonic fill, on free-form holes of 25 % on average and on a centre box.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

FREE_FORM = "free_form(strokes=(2, 4), width=(5, 11))"
"""Holes of 25 % on average: the brush of 12 to 39 pixels is too broad for 64 pixels."""


def config() -> Config:
    """Returns the run."""
    return Config(
        method="partial_conv",
        steps=8000,
        options={
            "levels": 5,
            "width": 64,
            "max_width": 96,
            "perceptual": 0.0,
            "style": 0.0,
            # The last layer cannot tell a known pixel from its neighbour in the hole:
            # learning to copy the one spoils the other.
            "valid": 0.05,
        },
        data=Data(
            image_size=64,
            load_size=96,
            min_crop=2 / 3,
            masks=(FREE_FORM, FREE_FORM, "center"),
            batch_size=16,
        ),
        optim=Optim(
            # Ten times the usual rate: with it, 600 steps reach what 6000 do with 1e-3.
            lr=1e-2,
            warmup_steps=200,
            decay_steps=8000,
            final_lr=0.01,
            ema_decay=0.999,
        ),
        eval=Eval(every=500, images=62, masks=(FREE_FORM, "center")),
        checkpoint=Checkpoint(every=500, best=f"eval/{FREE_FORM}/hole_l1"),
        log=Log(samples_every=1000),
    )
