"""The diffusion model of guided-diffusion's 256 pixel settings, on CelebA-HQ.

Command:  python train.py configs/ddpm_celebahq256.py --workdir runs/celebahq
Hardware: RePaint's authors: four V100, batch 3 on each.
Time:     not measured here; theirs has 250,000 steps by its name.
Score:    not measured here.

Network, losses, optimizer and moving average are those of the released checkpoints
(552,814,086 parameters). bfloat16 with float32 parameters in the place of their float16
with loss scaling, in which users saw NaN.
"""

from jaxpaint.config import Checkpoint, Compute, Config, Data, Eval, Log, Optim


def config() -> Config:
    """Returns the run."""
    return Config(
        method="repaint",
        steps=250_000,
        options={
            "image_size": 256,
            "channels": 256,
            "multipliers": (1, 1, 2, 2, 4, 4),
            "blocks": 2,
            "attention": (8, 16, 32),
            "head_channels": 64,
            "resample_blocks": True,
            "learned_variance": True,
            "schedule": "linear",
            "steps": 1000,
            # N / 1000, as L_hybrid has it.
            "bound": 1.0,
            "sampling": "ddnm",
            "preset": "draft",
        },
        data=Data(
            train="tfds:celeb_a_hq/256/train[1000:]",
            validation="tfds:celeb_a_hq/256/train[:1000]",
            image_size=256,
            masks=("center",),
            batch_size=16,
        ),
        optim=Optim(lr=1e-4, ema_decay=0.9999),
        compute=Compute(dtype="bfloat16", remat=True),
        eval=Eval(every=10_000, images=64, masks=("center", "wide"), batch_size=16),
        checkpoint=Checkpoint(every=5000),
        log=Log(samples_every=10_000),
    )
