"""LPIPS against its definition, written once more in numpy and scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from jaxpaint import lpips
from jaxpaint.errors import InputError

ALEX = {0: (8, 3, 11), 3: (6, 8, 5), 6: (5, 6, 3), 8: (4, 5, 3), 10: (4, 4, 3)}
VGG = {0: (2, 3, 3), 2: (2, 2, 3), 5: (3, 2, 3), 7: (3, 3, 3), 10: (3, 3, 3)} | {
    number: (3, 3, 3) for number in (12, 14, 17, 19, 21, 24, 26, 28)
}
LAST = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}


def trunk(layers):
    rng = np.random.default_rng(0)
    arrays = {}
    for number, (out, into, side) in layers.items():
        kernel = rng.normal(0, 1 / np.sqrt(into * side * side), (out, into, side, side))
        arrays[f"features.{number}.weight"] = kernel
        arrays[f"features.{number}.bias"] = rng.normal(0, 0.1, out)
    return arrays


def lines(name, layers):
    rng = np.random.default_rng(1)
    return {
        f"lin{i}.model.1.weight": rng.uniform(0, 1, (1, layers[n][0], 1, 1))
        for i, n in enumerate(LAST[name])
    }


def convolve(x, kernel, bias, stride, padding):
    """`[C, H, W]` by `[O, C, h, w]`."""
    x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2))
    maps = [correlate(x, k, "valid")[0] for k in kernel]
    return np.stack(maps)[:, ::stride, ::stride] + bias[:, None, None]


def pool(x, side):
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return windows[:, ::2, ::2].max((-1, -2))


def expected(name, arrays, weights, x, y):
    total = 0.0
    shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    pair = [
        (z.transpose(2, 0, 1) - np.array(shift)[:, None, None])
        / np.array(scale)[:, None, None]
        for z in (x, y)
    ]
    pools = {"alex": (3, 6), "vgg": (5, 10, 17, 24)}[name]
    stage = 0
    for number in ALEX if name == "alex" else VGG:
        kernel, bias = (arrays[f"features.{number}.{k}"] for k in ("weight", "bias"))
        first = name == "alex" and number == 0
        for i, z in enumerate(pair):
            z = pool(z, 3 if name == "alex" else 2) if number in pools else z
            padding = 2 if first else kernel.shape[-1] // 2
            pair[i] = np.maximum(
                convolve(z, kernel, bias, 4 if first else 1, padding), 0
            )
        if number in LAST[name]:
            unit = [z / (np.sqrt((z**2).sum(0)) + 1e-10) for z in pair]
            weight = weights[f"lin{stage}.model.1.weight"][0]
            total += (weight * (unit[0] - unit[1]) ** 2).sum(0).mean()
            stage += 1
    return total


@pytest.fixture
def files(monkeypatch):
    """Stands in for files: name to arrays."""
    found = {}
    monkeypatch.setattr(lpips.torch_file, "load", lambda path: found[str(path)])
    return found


@pytest.mark.parametrize(("name", "layers"), [("alex", ALEX), ("vgg", VGG)])
def test_distance_is_that_of_the_definition(files, name, layers):
    files["trunk"], files["linear"] = trunk(layers), lines(name, layers)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-1, 1, (2, 2, 40, 36, 3))
    params = lpips.read("trunk", "linear")
    got = lpips.distance(params, jnp.asarray(x, "f4"), jnp.asarray(y, "f4"))
    want = [expected(name, *files.values(), *pair) for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-4)
    same = lpips.distance(params, jnp.asarray(x, "f4"), jnp.asarray(x, "f4"))
    np.testing.assert_array_equal(same, 0)


def test_files_that_do_not_fit_are_refused(files):
    files["alex"], files["vgg"] = trunk(ALEX), trunk(VGG)
    files["lines"] = lines("alex", ALEX)
    with pytest.raises(InputError, match=r"has 8 weights; want 2, those of vgg\.pth"):
        lpips.read("vgg", "lines")
    with pytest.raises(InputError, match="neither AlexNet nor VGG16"):
        lpips.read("lines", "lines")
    del files["alex"]["features.6.bias"]
    with pytest.raises(InputError, match=r"missing: features\.6\.bias"):
        lpips.read("alex", "lines")
