"""Scores on validation pictures, and pictures of results, during a run."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpaint import masks, methods, metrics
from jaxpaint.config import Config
from jaxpaint.errors import InputError, unknown_name
from jaxpaint.images import to_float, to_uint8
from jaxpaint.training import mesh as meshes
from jaxpaint.training.programs import Program
from jaxpaint.training.record import Record
from jaxpaint.training.step import TrainState

if TYPE_CHECKING:
    from jaxpaint.cli.progress import Progress

Scores = dict[str, float]

METRICS = ("hole_l1", "l1", "psnr", "ssim")

_KEY = 0x6D61736B
"""Seed of the validation masks: the same ones in every run."""


class Evaluation(NamedTuple):
    """Validation pictures with their masks, ready on the devices."""

    parts: tuple[dict[str, Any], ...]
    """Of a batch each: `image`, `weight` `[B]` (0 for rows that only fill up the last
    batch) and, by its kind, each mask."""
    kinds: tuple[str, ...]
    pictures: int


def prepare(
    pictures: np.ndarray, config: Config, mesh: jax.sharding.Mesh
) -> Evaluation:
    """Returns the evaluation on uint8 pictures `[N, S, S, 3]`."""
    count, size = len(pictures), config.eval.batch_size
    sharding = meshes.over_batch(mesh)
    parts = []
    keys = jax.random.split(jax.random.key(_KEY), -(-count // size) * size)
    samplers = {
        kind: jax.jit(
            jax.vmap(functools.partial(masks.parse(kind), pictures.shape[1:3]))
        )
        for kind in config.eval.masks
    }
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        image = pictures[np.minimum(rows, count - 1)]
        part = {"image": to_float(image), "weight": (rows < count).astype(np.float32)}
        for kind, draw in samplers.items():
            part[kind] = np.asarray(draw(keys[rows]))
        parts.append({name: _place(value, sharding) for name, value in part.items()})
    return Evaluation(tuple(parts), config.eval.masks, count)


def _place(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns an array that every process holds whole, spread over all of them."""
    return jax.make_array_from_callback(value.shape, sharding, lambda i: value[i])


Fill = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


def scorer(
    inpaint: Fill, mesh: jax.sharding.Mesh
) -> Callable[[Any, Evaluation], Scores]:
    """Returns the function that scores `(params, image, mask, key) -> image`.

    Its results are means over the pictures by name, `KIND/METRIC`.
    """

    def part_sums(params: Any, image: jax.Array, mask: jax.Array, weight: jax.Array):
        result = inpaint(params, image, mask, jax.random.key(_KEY))
        scores = {
            "hole_l1": metrics.hole_l1(result, image, mask),
            "l1": metrics.l1(result, image),
            "psnr": jnp.minimum(metrics.psnr(result, image), 100.0),
        }
        if min(image.shape[1:3]) >= 11:
            scores["ssim"] = metrics.ssim(result, image)
        return {name: jnp.sum(value * weight) for name, value in scores.items()}

    compiled = jax.jit(part_sums, out_shardings=meshes.replicated(mesh))

    def score(params: Any, evaluation: Evaluation) -> Scores:
        sums: dict[str, list[jax.Array]] = {}
        for part in evaluation.parts:
            for kind in evaluation.kinds:
                found = compiled(params, part["image"], part[kind], part["weight"])
                for name, value in found.items():
                    sums.setdefault(f"{kind}/{name}", []).append(value)
        return {
            name: sum(float(jax.device_get(v)) for v in values) / evaluation.pictures
            for name, values in sums.items()
        }

    return score


def baselines(
    evaluation: Evaluation, names: tuple[str, ...], mesh: jax.sharding.Mesh
) -> dict[str, Scores]:
    """Returns the scores of methods without parameters on the same masks."""
    found = {}
    for name in names:
        method = methods.make(name)
        if method.train_step is not None:
            raise InputError(
                f"'{name}' in eval.baselines has to be trained; want a method without "
                "parameters, such as harmonic"
            )
        found[name] = scorer(method.inpaint, mesh)({}, evaluation)
    return found


def result_rows(
    inpaint: Fill, mesh: jax.sharding.Mesh
) -> Callable[[Any, Evaluation, int], np.ndarray]:
    """Returns the function that makes the picture of a few results.

    Its result is uint8 `[rows * S, columns * S, 3]`: one row per picture, and in it for
    each kind of mask the truth, the masked picture and the result.
    """

    def triple(params: Any, image: jax.Array, mask: jax.Array) -> jax.Array:
        result = inpaint(params, image, mask, jax.random.key(_KEY))
        masked = jnp.where(mask > 0, 1.0, image)
        return jnp.concatenate([image, masked, result], axis=2)

    compiled = jax.jit(triple, out_shardings=meshes.replicated(mesh))

    def draw(params: Any, evaluation: Evaluation, rows: int) -> np.ndarray:
        part = evaluation.parts[0]
        rows = min(rows, evaluation.pictures, part["image"].shape[0])
        columns = [
            to_uint8(jax.device_get(compiled(params, part["image"], part[kind])))
            for kind in evaluation.kinds
        ]
        return np.concatenate(
            [np.concatenate(list(c[:rows]), axis=0) for c in columns], axis=1
        )

    return draw


class Judge:
    """Measures a run on its validation pictures, now and then."""

    def __init__(
        self,
        program: Program,
        pictures: np.ndarray,
        record: Record,
        progress: "Progress",
    ):
        self._config = program.config
        self._mesh, self._record, self._progress = program.mesh, record, progress
        self._evaluation = prepare(pictures, program.config, program.mesh)
        method = program.method

        def inpaint(inner: Any, image: jax.Array, mask: jax.Array, key: jax.Array):
            return method.inpaint(method.eval_params(inner), image, mask, key)

        self._score = scorer(inpaint, program.mesh)
        self._draw = result_rows(inpaint, program.mesh)
        best = program.config.checkpoint.best
        known = [
            f"eval/{kind}/{name}" for kind in self._evaluation.kinds for name in METRICS
        ]
        if best and best not in known:
            raise unknown_name("metric in checkpoint.best", best, known)

    def measure_baselines(self, step: int) -> None:
        """Records the scores of the methods without parameters, once per start."""
        found = baselines(self._evaluation, self._config.eval.baselines, self._mesh)
        for name, scores in found.items():
            self._record.scalars(
                step, {f"baseline/{name}/{k}": v for k, v in scores.items()}
            )
            self._progress.note(f"{name}: {_summary(scores)}")

    def due(self, step: int, last: bool) -> bool:
        """Returns whether something is to be measured or drawn after a step."""
        return self._scores_due(step, last) or self._samples_due(step, last)

    def look(self, step: int, state: TrainState, last: bool) -> float | None:
        """Measures and draws what is due; returns the metric of `checkpoint.best`."""
        if self._samples_due(step, last):
            rows = self._draw(state.inner, self._evaluation, self._config.log.samples)
            self._record.picture(step, rows)
        if not self._scores_due(step, last):
            return None
        scores = self._score(state.inner, self._evaluation)
        named = {f"eval/{name}": value for name, value in scores.items()}
        self._record.scalars(step, named)
        self._progress.note(f"step {step}: {_summary(scores)}")
        best = self._config.checkpoint.best
        return named[best] if best else None

    def _scores_due(self, step: int, last: bool) -> bool:
        every = self._config.eval.every
        return bool(every) and (last or step % every == 0)

    def _samples_due(self, step: int, last: bool) -> bool:
        every = self._config.log.samples_every
        return bool(every) and (last or step % every == 0)


def _summary(scores: Scores) -> str:
    return ", ".join(
        f"{name} {value:.4g}"
        for name, value in scores.items()
        if name.endswith(("/hole_l1", "/psnr"))
    )
