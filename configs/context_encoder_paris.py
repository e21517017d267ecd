"""Context Encoder, centre model, with the settings of the official code.

Command:  python train.py configs/context_encoder_paris.py --workdir runs/paris \
            data.train=FOLDER data.validation=FOLDER
Hardware: one GPU or TPU with 16 GB.
Time:     not measured.
Score:    paper, Paris StreetView held out: L1 9.4 %, L2 2.0 %, PSNR 18.6 dB over the
          centre; others measured 10.3 %, 2.4 %, 17.6 dB with the released weights.

Paris StreetView is given out by the authors on request only; any other pictures do, for
instance `data.train=tfds:places365_small/train` or a folder. Its training set has
14,900 pictures: 233 batches of 64 an epoch, 500 epochs.

The paper's overlap is 7: `options.overlap=7`, and a hole of 50 pixels in `eval.masks`,
`boxes(count=(1, 1), side=(0.390625, 0.390625), margin=0.3046875)`.
"""

from jaxpaint.config import Checkpoint, Config, Data, Eval, Log, Optim

HOLE = "boxes(count=(1, 1), side=(0.4375, 0.4375), margin=0.28125)"
"""The 56 pixels in the centre that an overlap of 4 leaves of 64 predicted ones."""


def config() -> Config:
    """Returns the run."""
    return Config(
        method="context_encoder",
        steps=500 * 233,
        options={"image_size": 128, "overlap": 4},
        data=Data(
            image_size=128,
            load_size=350,
            min_crop=128 / 350,
            max_crop=128 / 350,
            masks=("center",),
            batch_size=64,
        ),
        optim=Optim(lr=2e-4, b1=0.5),
        eval=Eval(every=2000, images=96, batch_size=32, masks=(HOLE,)),
        checkpoint=Checkpoint(every=2000),
        log=Log(samples_every=2000),
    )
