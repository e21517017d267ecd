"""GLCIC on faces of CelebA at 160 pixels: the paper's setting for faces.

Command:  python train.py configs/glcic_celeba.py --workdir runs/faces
Hardware: one GPU or TPU with 16 GB.
Time:     not measured.
Score:    the authors': none in numbers. Reported for mmagic's variant at 256 pixels,
          boxes: PSNR 26.78, SSIM 0.904.

Windows of 96 pixels, holes with sides of 48 to 96. Steps are the defaults of otenim's
port.
"""

import dataclasses
import runpy
from pathlib import Path

from jaxpaint.config import Config


def config() -> Config:
    """Returns the run."""
    first = Path(__file__).with_name("glcic_places2.py")
    places = runpy.run_path(str(first))["config"]()
    masks = ("boxes(count=(1, 1), side=(0.3, 0.6))",)
    return dataclasses.replace(
        places,
        steps=400_000,
        options={
            **places.options,
            "image_size": 160,
            "local_size": 96,
            # The usual mean of CelebA, (0.506, 0.426, 0.383), in [-1, 1].
            "mean": (0.013, -0.148, -0.234),
        },
        data=dataclasses.replace(
            places.data,
            train="tfds:celeb_a/train",
            validation="tfds:celeb_a/validation",
            image_size=160,
            load_size=178,
            min_crop=160 / 178,
            masks=masks,
        ),
        eval=dataclasses.replace(places.eval, masks=masks),
        checkpoint=dataclasses.replace(
            places.checkpoint, best=f"eval/{masks[0]}/hole_l1"
        ),
    )
