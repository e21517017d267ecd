"""Context Encoder, centre model, on a folder of photographs at 64 pixels, on a CPU.

Command:  python train.py configs/context_encoder_center_photos64.py \
            --workdir runs/center data.train=FOLDER data.validation=FOLDER
Hardware: 2 CPU cores, 4 GB of memory.
Time:     12 minutes.
Score:    L1 over the hole (half the sides) on 62 photographs: 0.1254, 22.40 dB; mean
          color 0.1815, 19.71 dB; harmonic 0.1198, 22.56 dB.

The paper's network, half as wide, with a bottleneck of 512 in place of 4000: few
pictures, and as many parameters as they can bear. No overlap, so that the hole is that
of the masks `center`.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    steps = 1200
    return Config(
        method="context_encoder",
        steps=steps,
        options={
            "image_size": 64,
            "encoder_width": 32,
            "decoder_width": 32,
            "discriminator_width": 16,
            "bottleneck": 512,
            "overlap": 0,
        },
        data=Data(
            image_size=64,
            load_size=128,
            min_crop=0.4,
            masks=("center",),
            batch_size=32,
        ),
        optim=Optim(lr=1e-4, b1=0.5, decay_steps=steps, final_lr=0.05, ema_decay=0.999),
        eval=Eval(every=500, images=62, batch_size=31, masks=("center",)),
        checkpoint=Checkpoint(every=500, best="eval/center/hole_l1"),
        log=Log(every=50, samples_every=1000),
    )
