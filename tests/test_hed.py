"""The edge network, beside a plain form of it, out of both kinds of files."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from jaxpaint import hed, methods
from jaxpaint.config import Optim
from jaxpaint.errors import InputError

NAMES = ("One", "Two", "Thr", "Fou", "Fiv")
WIDTHS = (4, 4, 6, 6, 6)
LAYERS = (2, 2, 3, 3, 3)


def network(seed=0):
    """Returns kernels `[O, I, h, w]` and biases: stages, scores, and how to weigh."""
    draw = np.random.default_rng(seed)

    def layer(outputs, inputs, size):
        scale = (2 / inputs) ** 0.5 / size
        kernel = scale * draw.standard_normal((outputs, inputs, size, size))
        return kernel.astype(np.float32), np.float32(draw.normal(0, 0.1, outputs))

    stages, scores, inputs = [], [], 3
    for width, count in zip(WIDTHS, LAYERS, strict=True):
        stages.append([])
        for _ in range(count):
            stages[-1].append(layer(width, inputs, 3))
            inputs = width
        scores.append(layer(1, inputs, 1))
    return stages, scores, layer(1, 5, 1)


def arrays_of(layers, *, equal=False):
    """Returns what a file of pytorch-hed, or with `equal` of ControlNet, holds."""
    stages, scores, combine = layers
    found = {}
    for index, (stage, score) in enumerate(zip(stages, scores, strict=True)):
        for number, parts in enumerate(stage):
            key = f"moduleVgg{NAMES[index]}.{2 * number + (index > 0)}"
            key = f"block{index + 1}.convs.{number}" if equal else key
            found[key] = parts
        key = f"block{index + 1}.projection" if equal else f"moduleScore{NAMES[index]}"
        found[key] = score
    if not equal:
        found["moduleCombine.0"] = combine
    arrays = {
        f"{key}.{name}": x
        for key, parts in found.items()
        for name, x in zip(("weight", "bias"), parts, strict=True)
    }
    if equal:
        arrays["norm"] = np.full((1, 3, 1, 1), 110, np.float32)
    return arrays


def plain(layers, x, weights, bias):
    """Returns the edges `[H, W]` of a picture `[C, H, W]` whose mean is taken off."""
    shape, total = x.shape[1:], bias
    for index, (stage, (kernel, shift)) in enumerate(
        zip(layers[0], layers[1], strict=True)
    ):
        if index:
            height, width = (side // 2 * 2 for side in x.shape[1:])
            cut = x[:, :height, :width].reshape(len(x), height // 2, 2, width // 2, 2)
            x = cut.max((2, 4))
        for weight, offset in stage:
            out = [
                sum(
                    ndimage.correlate(row, taps, mode="constant")
                    for row, taps in zip(x, one, strict=True)
                )
                for one in weight
            ]
            x = np.maximum(np.stack(out) + offset[:, None, None], 0)
        score = np.tensordot(kernel[0, :, 0, 0], x, 1) + shift[0]
        # Bilinear, pixels as areas, continued by the border.
        places = [
            (np.arange(n) + 0.5) * m / n - 0.5
            for n, m in zip(shape, score.shape, strict=True)
        ]
        grid = np.meshgrid(*places, indexing="ij")
        large = ndimage.map_coordinates(score, grid, order=1, mode="nearest")
        total = total + weights[index] * large
    return 1 / (1 + np.exp(-total))


@pytest.fixture
def file(monkeypatch):
    """Returns a function that makes `read` see arrays."""

    def see(arrays):
        monkeypatch.setattr(hed.torch_file, "load", lambda path: arrays)
        return "hed.pth"

    return see


def picture(shape=(37, 50)):
    draw = np.random.default_rng(3)
    return ndimage.gaussian_filter(draw.uniform(0, 255, (*shape, 3)), (1, 1, 0))


def edges_of(params, image):
    x = np.float32(image / 127.5 - 1)[None]
    return np.asarray(jax.jit(hed.edges)(params, x))[0, ..., 0]


def test_weights_of_the_authors_see_blue_first(file):
    layers, image = network(), picture()
    got = edges_of(hed.read(file(arrays_of(layers))), image)
    x = image[..., ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])
    kernel, bias = layers[2]
    want = plain(layers, x.transpose(2, 0, 1), kernel[0, :, 0, 0], bias[0])
    assert want.std() > 0.02
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_weights_of_controlnet_weigh_stages_equally(file):
    layers, image = network(1), picture()
    got = edges_of(hed.read(file(arrays_of(layers, equal=True))), image)
    want = plain(layers, (image - 110).transpose(2, 0, 1), np.full(5, 0.2), 0.0)
    assert want.std() > 0.02
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("equal", [False, True])
def test_a_file_that_lacks_a_layer_is_refused(file, equal):
    arrays = arrays_of(network(), equal=equal)
    gone = "block4.convs.2" if equal else "moduleVggFou.5"
    del arrays[f"{gone}.bias"]
    with pytest.raises(InputError, match=f"1 missing: {gone}"):
        hed.read(file(arrays))


def test_pictures_that_do_not_fit_are_refused(file):
    params = hed.read(file(arrays_of(network())))
    with pytest.raises(InputError, match="12x32 pixels of 3 channels"):
        hed.edges(params, np.zeros((1, 32, 12, 3), np.float32))
    with pytest.raises(InputError, match="hed finds lines"):
        methods.make("deepfill_v2", hed="hed.pth")


def test_the_guided_network_learns_from_these_edges(file):
    """With edges everywhere its loss is another one than with edges nowhere."""
    draw = np.random.default_rng(0)
    batch = {
        "image": np.float32(draw.uniform(-1, 1, (2, 32, 32, 3))),
        "mask": np.zeros((2, 32, 32, 1), np.float32),
    }
    batch["mask"][:, 8:24, 8:24] = 1
    key, losses = jax.random.key(0), []
    method = methods.make(
        "deepfill_v2",
        image_size=32,
        width=8,
        guided=True,
        hed=file(arrays_of(network())),
        adversarial_weight=0,
        init_gain=3,
        optim=Optim(),
    )
    state, step = method.init(key, batch), jax.jit(method.train_step)
    for level in (-100, 100):
        combine = {**state.hed["combine"], "bias": np.full(1, level, np.float32)}
        led = state._replace(hed={**state.hed, "combine": combine})
        new, metrics = step(led, batch, key)
        losses.append(float(metrics["loss/gen"]))
        np.testing.assert_array_equal(new.hed["mean"], state.hed["mean"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
