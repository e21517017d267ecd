"""DeepFill v1 on a folder of photographs, at 64 pixels, on a CPU.

Command:  python train.py configs/deepfill_v1_photos64.py --workdir runs/a \
            data.train=PHOTOS/train data.validation=PHOTOS/test
Hardware: 2 CPU cores, 4 GB of memory.
Time:     not run to its end; 1.2 seconds a step on one core beside another run.
Score:    not measured yet.

A network of half the published width. The critics take every second step, so that the
generator learns in 4000, and count little: at 64 pixels the question is whether it
beats the harmonic fill on boxes.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

SURVEY = ("wide", "half", "super_resolve_2x", "alternating_lines")
"""Kinds of masks of RePaint (Lugmayr et al. 2022)."""


def config() -> Config:
    """Returns the run."""
    steps = 8000
    return Config(
        method="deepfill_v1",
        steps=steps,
        options={
            "image_size": 64,
            "width": 16,
            "critic_width": 16,
            "critic_steps": 1,
            "adversarial_weight": 0.0003,
            # Learning to copy known pixels takes from what the hole could have.
            "known_weight": 0.1,
        },
        data=Data(
            image_size=64,
            load_size=96,
            min_crop=2 / 3,
            # The kinds of the survey as well, for weights that know them. Not `expand`:
            # the losses look at the middle of a hole.
            masks=("deepfill_box",) * 5 + SURVEY,
            batch_size=16,
        ),
        optim=Optim(
            # Ten times the published rate; three times as much learns less.
            lr=1e-3,
            warmup_steps=200,
            decay_steps=steps,
            final_lr=0.01,
            b1=0.5,
            b2=0.9,
            ema_decay=0.999,
        ),
        eval=Eval(every=500, images=62, batch_size=31, masks=("deepfill_box",)),
        checkpoint=Checkpoint(every=500, best="eval/deepfill_box/hole_l1"),
        log=Log(samples_every=1000),
    )
