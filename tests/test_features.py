import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpaint import features, images
from jaxpaint.errors import InputError
from jaxpaint.features import efficientnet_lite0, imagenet

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def recorded() -> Path:
    """The folder of EfficientNet-Lite0 and what its reference answered.

    As `fixtures`, with JAXPAINT_FEATURES.
    """
    named = os.environ.get("JAXPAINT_FEATURES")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "features"
    if not folder.is_dir():
        if named:
            pytest.fail(f"JAXPAINT_FEATURES names {folder}, which is no folder")
        pytest.skip("no feature network; JAXPAINT_FEATURES names a folder")
    return folder


@pytest.mark.parity
def test_efficientnet_answers_as_its_reference(recorded):
    params = efficientnet_lite0.read_classifier(recorded / "efficientnet_lite0_f16.npz")
    known = np.load(recorded / "efficientnet_lite0_parity.npz")
    image = jnp.asarray(images.to_float(known["eff_in_u8"]))
    with jax.default_matmul_precision("highest"):
        pooled, logits = jax.jit(efficientnet_lite0.classify)(params, image)
    np.testing.assert_allclose(pooled, known["eff_pool"], atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(logits, known["eff_logits"], atol=1e-3, rtol=1e-3)
    np.testing.assert_array_equal(np.argmax(logits, -1), [285, 698])


@pytest.mark.parity
def test_feature_maps_take_the_layers_they_need_and_no_more(recorded):
    params = efficientnet_lite0.read(recorded / "efficientnet_lite0_f16.npz")
    assert "block4" in params
    assert "block5" not in params
    shapes = jax.eval_shape(
        efficientnet_lite0.maps, params, jax.ShapeDtypeStruct((2, 64, 48, 3), "float32")
    )
    want = [(2, 32, 24, 16), (2, 16, 12, 24), (2, 8, 6, 40)]
    assert [x.shape for x in shapes] == want


def test_imagenet_scale_and_back():
    image = jnp.linspace(-1, 1, 24).reshape(1, 2, 4, 3)
    scaled = imagenet.normalize(image)
    np.testing.assert_allclose(imagenet.restore(scaled), image, atol=1e-6)
    # Black is -mean / deviation.
    np.testing.assert_allclose(
        imagenet.normalize(-jnp.ones((1, 1, 1, 3)))[0, 0, 0],
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        rtol=1e-5,
    )


def test_a_file_is_known_by_its_ending():
    assert features.find("vgg16-397923af.pth").__name__.endswith("vgg16")
    assert features.find("net.npz").__name__.endswith("efficientnet_lite0")
    with pytest.raises(InputError, match=r"want a \.pth file"):
        features.find("vgg16.h5")


@pytest.mark.parametrize("content", [None, b"", b"PK no archive"])
def test_a_bad_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "features.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"features\.npz") as raised:
        efficientnet_lite0.read(path)
    assert "\n" not in str(raised.value)


def test_missing_arrays_are_named(tmp_path):
    path = tmp_path / "features.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputError, match=r"missing: _conv_stem\.weight"):
        efficientnet_lite0.read(path)
