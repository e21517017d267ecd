"""A diffusion model for RePaint on a folder of photographs, at 32 pixels, on a CPU.

Command:  python train.py configs/ddpm_photos32.py --workdir runs/ddpm \
            data.train=FOLDER data.validation=FOLDER
Hardware: 2 CPU cores, 3 GB of memory.
Time:     50 minutes, while other work took a part of the cores. (The run whose weights
          come with jaxpaint was planned for 4500 steps until step 1341: its learning
          rate was a little higher until there.)
Score:    squared error of the noise 0.063 in training. L1 over the central hole (half
          the sides) on 62 photographs, one sample each, `ddnm` with 50 network calls:
          0.1350; harmonic 0.1134, mean color 0.1732. A fill is one guess and no mean,
          which costs L1.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    steps = 3000
    return Config(
        method="repaint",
        steps=steps,
        options={
            "image_size": 32,
            "channels": 32,
            "multipliers": (1, 2, 4),
            "blocks": 2,
            "attention": (4,),
            "head_channels": 32,
            "resample_blocks": True,
            "schedule": "cosine",
            "steps": 1000,
            # For the scores on the way: a few network calls for each picture.
            "sampling": "ddnm",
            "preset": "draft",
        },
        data=Data(
            image_size=32,
            load_size=48,
            min_crop=2 / 3,
            masks=("center",),
            batch_size=16,
        ),
        optim=Optim(
            lr=4e-4,
            warmup_steps=200,
            decay_steps=steps,
            final_lr=0.05,
            ema_decay=0.998,
            clip_norm=1.0,
        ),
        eval=Eval(every=1000, images=62, masks=("center",), batch_size=31),
        checkpoint=Checkpoint(every=500, best="eval/center/hole_l1"),
        log=Log(samples_every=1000),
    )
