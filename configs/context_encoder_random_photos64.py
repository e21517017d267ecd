"""Context Encoder, whole-image model, on photographs at 64 pixels, on a CPU.

Command:  python train.py configs/context_encoder_random_photos64.py \
            --workdir runs/random data.train=FOLDER data.validation=FOLDER
Hardware: 2 CPU cores, 4 GB of memory.
Time:     26 minutes, beside other work.
Score:    L1 over the hole on 62 photographs, random regions and random blocks: 0.0657
          and 0.0784 blended, 0.1145 and 0.1148 as drawn; mean color 0.1672 and 0.1755;
          harmonic 0.0622 and 0.0765.

As context_encoder_center_photos64.py, with a hole of its own for every picture, and
nothing learned where pixels are known.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

SURVEY = ("wide", "half", "expand", "super_resolve_2x", "alternating_lines")
"""Kinds of masks of RePaint (Lugmayr et al. 2022), for weights that know them."""


def config() -> Config:
    """Returns the run."""
    steps = 2400
    masks = ("random_region", "random_blocks")
    return Config(
        method="context_encoder",
        steps=steps,
        options={
            "image_size": 64,
            "whole_image": True,
            "encoder_width": 32,
            "decoder_width": 32,
            "discriminator_width": 16,
            "bottleneck": 256,
            # Without connections around the bottleneck it draws known pixels otherwise.
            "blend": True,
        },
        data=Data(
            image_size=64,
            load_size=128,
            min_crop=0.4,
            masks=(*masks, *SURVEY),
            batch_size=32,
        ),
        optim=Optim(lr=2e-4, b1=0.5, decay_steps=steps, final_lr=0.05, ema_decay=0.999),
        eval=Eval(every=800, images=62, batch_size=31, masks=masks),
        checkpoint=Checkpoint(every=800, best="eval/random_region/hole_l1"),
        log=Log(every=50, samples_every=2400),
    )
