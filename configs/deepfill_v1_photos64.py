"""DeepFill v1 on a folder of photographs, at 64 pixels, on a CPU.

Command:  python train.py configs/deepfill_v1_photos64.py --workdir runs/first \
            data.train=PHOTOS/train data.validation=PHOTOS/test
          and four times more, each from what came out (init_from=runs/first ..), with
          optim.decay_steps as steps, nine boxes among the masks from the third on, and:
          - steps=2200 optim.warmup_steps=50 optim.ema_decay=0.998
          - steps=1000 optim.warmup_steps=50 optim.ema_decay=0.995 optim.lr=5e-4
          - the same with steps=700 optim.lr=4e-4 options.discount=1
          - the same with steps=2200 optim.lr=5e-4 options.box_loss=False, and
            `expand` among the masks
Hardware: 2 CPU cores, 4 GB of memory.
Time:     22, 18, 9, 7 and 23 minutes.
Score:    L1 over the hole on 62 photographs, boxes: 0.1163, 0.1127, 0.1123, 0.1116 and
          0.1108 as drawn after the runs, 0.1041 blended; harmonic 0.1115, mean color
          0.1834.

A network of half the published width, without critics (adversarial_weight=0): on 64
pixels the question is whether it beats the harmonic fill on boxes. With critics that
take every second step it learns half as often.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

SURVEY = ("wide", "half", "super_resolve_2x", "alternating_lines")
"""Kinds of masks of RePaint (Lugmayr et al. 2022)."""


def config() -> Config:
    """Returns the run."""
    steps = 3000
    return Config(
        method="deepfill_v1",
        steps=steps,
        options={
            "image_size": 64,
            # At other sizes such a small network errs.
            "fixed_size": True,
            # It draws known pixels not quite as they are.
            "blend": True,
            "width": 16,
            "critic_width": 16,
            "critic_steps": 1,
            # Beside the errors, 0.0003 would be a small share.
            "adversarial_weight": 0.0,
            # Learning to copy known pixels takes from what the hole could have.
            "known_weight": 0.05,
        },
        data=Data(
            image_size=64,
            load_size=96,
            min_crop=2 / 3,
            # The kinds of the survey as well, for weights that know them. Not `expand`:
            # the losses look at the middle of a hole.
            masks=("deepfill_box",) * 5 + SURVEY,
            batch_size=8,
        ),
        optim=Optim(
            # Ten times the published rate; three times as much learns less.
            lr=1e-3,
            warmup_steps=100,
            decay_steps=steps,
            final_lr=0.01,
            b1=0.5,
            b2=0.9,
            ema_decay=0.999,
        ),
        eval=Eval(every=750, images=62, batch_size=31, masks=("deepfill_box",)),
        checkpoint=Checkpoint(every=750, best="eval/deepfill_box/hole_l1"),
        log=Log(samples_every=1500),
    )
