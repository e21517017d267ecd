"""Partial convolutions for all masks of the survey: the weights of the package.

Command:  python train.py configs/partial_conv_survey64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test
Hardware: one CPU core, 2 GB of memory.
Time:     0.55 to 0.65 seconds a step on one core, 50 minutes in all.
Score:    L1 over the hole on 62 photographs, beside harmonic: wide 0.0929 (0.0905),
          narrow 0.0684 (0.0539), super_resolve_2x 0.0316 (0.0345), alternating_lines
          0.0293 (0.0311), half 0.1313 (0.1567), expand 0.1822 (0.1870), free-form
          0.0834 (0.0799), center 0.1160 (0.1198).

As partial_conv_photos64.py, with the six masks of RePaint (Lugmayr et al. 2022) beside
free-form holes and a centre box. One network for all kinds learns each more slowly.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

FREE_FORM = "free_form(strokes=(2, 4), width=(5, 11))"
"""Holes of 25 % on average: the brush of 12 to 39 pixels is too broad for 64 pixels."""

SURVEY = ("wide", "narrow", "super_resolve_2x", "alternating_lines", "half", "expand")


def config() -> Config:
    """Returns the run."""
    steps = 5000
    return Config(
        method="partial_conv",
        steps=steps,
        options={
            "levels": 5,
            "width": 64,
            "max_width": 96,
            "perceptual": 0.0,
            "style": 0.0,
            "valid": 0.05,
        },
        data=Data(
            image_size=64,
            load_size=96,
            min_crop=2 / 3,
            masks=(*SURVEY, FREE_FORM, "center"),
            batch_size=16,
        ),
        optim=Optim(
            lr=1e-2,
            warmup_steps=200,
            decay_steps=steps,
            final_lr=0.01,
            ema_decay=0.999,
        ),
        eval=Eval(every=2500, images=62, masks=(*SURVEY, FREE_FORM, "center")),
        checkpoint=Checkpoint(every=500),
        log=Log(samples_every=2500),
    )
