"""Context Encoder, whole-image model, on photographs at 64 pixels, on a CPU.

Command:  python train.py configs/context_encoder_random_photos64.py \
            --workdir runs/random data.train=FOLDER data.validation=FOLDER
Hardware: 2 CPU cores, 4 GB of memory.
Time:     5 minutes.
Score:    L1 over the hole on 62 photographs, random regions and random blocks: 0.1163
          and 0.1173; mean color 0.1672 and 0.1755; harmonic 0.0622 and 0.0765, which
          a network without skip connections cannot reach next to known pixels.

As context_encoder_center_photos64.py, with a hole of its own for every picture, and
nothing learned where pixels are known.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    steps = 1200
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
            "bottleneck": 512,
        },
        data=Data(
            image_size=64,
            load_size=128,
            min_crop=0.4,
            masks=masks,
            batch_size=32,
        ),
        optim=Optim(lr=1e-4, b1=0.5, decay_steps=steps, final_lr=0.05, ema_decay=0.999),
        eval=Eval(every=500, images=62, batch_size=31, masks=masks),
        checkpoint=Checkpoint(every=500, best="eval/random_region/hole_l1"),
        log=Log(every=50, samples_every=1000),
    )
