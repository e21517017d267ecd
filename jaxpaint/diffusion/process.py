"""The Gaussian process of a diffusion model and its tables (Ho et al. 2020).

A process has N levels 0 to N - 1; level -1 is the clean image. At level t an image is
`sqrt(abar[t]) x0 + sqrt(1 - abar[t]) noise`; abar is the product of 1 - beta up to t.
Tables are numpy arrays in float64; `at` rounds what a step needs to float32.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint.errors import InputError


def linear_betas(steps: int) -> np.ndarray:
    """Returns betas that rise linearly from 0.1 / steps to 20 / steps, float64."""
    if steps <= 20:
        raise InputError(f"a linear schedule of {steps} steps; want more than 20")
    return np.linspace(0.1 / steps, 20 / steps, steps, dtype=np.float64)


def cosine_betas(steps: int) -> np.ndarray:
    """Returns the betas of Nichol and Dhariwal (2021), equation 17, float64."""

    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    found = [1 - level((i + 1) / steps) / level(i / steps) for i in range(steps)]
    return np.minimum(np.array(found, dtype=np.float64), 0.999)


SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}


def kept_steps(steps: int, respacing: str) -> list[int]:
    """Returns which of `steps` a respaced process keeps, sorted.

    Args:
      steps: number of steps of the process that a network was trained on.
      respacing: `"ddim50"`: every k-th step, so that 50 remain (Song et al. 2021);
        `"quad50"`: 50 steps whose distances grow linearly towards noise (appendix D.2
        there), the first and last one included; or numbers with commas between, for as
        many equal sections, of which each keeps so many steps, its first and last one
        included (Nichol and Dhariwal 2021); `""`: all steps.

    Raises:
      InputError: a text of another form, or more steps than there are.
    """
    if not respacing:
        return list(range(steps))
    quadratic = respacing.startswith("quad")
    digits = respacing.removeprefix("quad" if quadratic else "ddim")
    try:
        counts = [int(text) for text in digits.split(",")]
    except ValueError:
        raise InputError(
            f"respacing '{respacing}' is not understood; want numbers such as 250 or "
            "10,15,25, ddim50 or quad50"
        ) from None
    if quadratic:
        if len(counts) > 1 or not 2 <= counts[0] <= steps:
            raise InputError(
                f"respacing '{respacing}' wants {digits} of {steps} steps; want 2 to "
                f"{steps}"
            )
        places = (steps - 1) * np.linspace(0, 1, counts[0]) ** 2
        # Near the clean image the places are closer than steps are.
        return np.maximum(places.astype(int), np.arange(counts[0])).tolist()
    if digits != respacing:
        for stride in range(1, steps + 1):
            kept = range(0, steps, stride)
            if len(counts) == 1 and len(kept) == counts[0]:
                return list(kept)
        raise InputError(f"no stride keeps {digits} of {steps} steps ('{respacing}')")
    kept = []
    start = 0
    for number, count in enumerate(counts):
        size = steps // len(counts) + (number < steps % len(counts))
        if not 1 <= count <= size:
            raise InputError(
                f"respacing '{respacing}' wants {count} of a section of {size} steps"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # Summed up one after another: rounding must fall as it did in training.
        place = 0.0
        for _ in range(count):
            kept.append(start + round(place))
            place += stride
        start += size
    return kept


@dataclasses.dataclass(frozen=True, eq=False)
class Process:
    """Betas, and the number that the network knows each level by."""

    betas: np.ndarray
    """Float64 `[N]`."""
    timesteps: np.ndarray
    """Whole numbers `[N]`: steps of the process that the network was trained on."""

    def __len__(self) -> int:
        return len(self.betas)

    @functools.cached_property
    def abar(self) -> np.ndarray:
        """Share of the image's power at each level, `[N]`."""
        return np.cumprod(1 - self.betas)

    @functools.cached_property
    def abar_before(self) -> np.ndarray:
        """`abar` of the next cleaner level, `[N]`; 1 for level 0."""
        return np.append(1.0, self.abar[:-1])

    @functools.cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of the level before given a level and the clean image, `[N]`."""
        return self.betas * (1 - self.abar_before) / (1 - self.abar)

    @functools.cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """Its logarithm; level 0, where it is 0, has that of level 1."""
        variance = self.posterior_variance
        return np.log(np.append(variance[min(1, len(self) - 1)], variance[1:]))

    @functools.cached_property
    def posterior_clean(self) -> np.ndarray:
        """Factor of the clean image in the mean of that posterior, `[N]`."""
        return self.betas * np.sqrt(self.abar_before) / (1 - self.abar)

    @functools.cached_property
    def posterior_noisy(self) -> np.ndarray:
        """Factor of the image at the level in the mean of that posterior, `[N]`."""
        return (1 - self.abar_before) * np.sqrt(1 - self.betas) / (1 - self.abar)


def make(schedule: str, steps: int, respacing: str = "") -> Process:
    """Returns a process of `steps` levels, or of those that `respacing` keeps.

    The betas of a respaced process give its levels the `abar` that they had.

    Raises:
      InputError: no such schedule, or a respacing that does not fit; see `kept_steps`.
    """
    if schedule not in SCHEDULES:
        raise InputError(
            f"no noise schedule '{schedule}'; want one of: {', '.join(SCHEDULES)}"
        )
    betas = SCHEDULES[schedule](steps)
    kept = np.array(kept_steps(steps, respacing))
    abar = np.cumprod(1 - betas)[kept]
    if len(kept) < steps:
        betas = 1 - abar / np.append(1.0, abar[:-1])
    return Process(betas, kept)


def at(table: np.ndarray, level: jax.Array) -> jax.Array:
    """Returns entries of a table, float32, shaped to multiply images.

    `level` is a scalar, or `[B]`, which gives `[B, 1, 1, 1]`.
    """
    values = jnp.asarray(table, jnp.float32)[level]
    return values.reshape(*values.shape, 1, 1, 1) if values.ndim else values


def diffuse(
    process: Process, clean: jax.Array, level: jax.Array, noise: jax.Array
) -> jax.Array:
    """Returns clean images brought to a level (Ho et al. 2020, equation 4)."""
    return at(np.sqrt(process.abar), level) * clean + (
        at(np.sqrt(1 - process.abar), level) * noise
    )
