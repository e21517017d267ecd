"""Configurations: files, overrides, what is written down, and their error lines."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxpaint import config as configs
from jaxpaint.config import Config
from jaxpaint.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted((ROOT / "configs").glob("*.py"))
BASE = Config("partial_conv", 100, {"levels": 5, "weights": (1.0, 6.0)})


def test_overrides_take_the_type_of_their_field():
    changed = configs.override(
        BASE,
        [
            "optim.lr=1",
            "data.masks=center",
            "data.flip=false",
            "steps=7",
            "options.levels=6",
            'mesh.rules=(("conv", "fsdp"), (".*", "replicate"))',
        ],
    )
    assert changed.optim.lr == 1.0
    assert isinstance(changed.optim.lr, float)
    assert changed.data.masks == ("center",)
    assert changed.data.flip is False
    assert changed.steps == 7
    assert changed.options["levels"] == 6
    assert changed.mesh.rules[0] == ("conv", "fsdp")
    assert BASE.optim.lr == configs.Optim().lr, "the original changed"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lrr=1", r"unknown config key 'optim\.lrr'; did you mean 'optim\.lr'\?"),
        ("stepz=1", r"did you mean 'steps'"),
        ("optim=1", "'optim' is a section"),
        ("steps=many", "'steps' is 'many'; want int"),
        ("steps=1.5", "want int"),
        ("data.flip=3", "want bool"),
        ("data.masks=3", "want tuple"),
        ("steps", "no '='"),
        ("seed.deep=3", "unknown config key"),
        ("options.a.b=3", "too deep"),
    ],
)
def test_a_wrong_override_is_one_clear_line(setting, message):
    with pytest.raises(InputError, match=message) as error:
        configs.override(BASE, [setting])
    assert "\n" not in str(error.value)


def test_json_brings_the_configuration_back():
    changed = configs.override(BASE, ["optim.lr=1e-5", "data.masks=('center','half')"])
    text = configs.to_json(changed)
    assert json.loads(text)["optim"]["lr"] == 1e-5
    assert configs.from_json(text) == changed


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": 1}', '{"method": "a"}'])
def test_json_that_is_no_configuration_is_refused(text):
    with pytest.raises(InputError, match="not the configuration of a run"):
        configs.from_json(text)


def test_json_with_an_unknown_key_is_refused():
    tree = json.loads(configs.to_json(BASE))
    tree["optim"]["momentums"] = 1
    with pytest.raises(InputError, match=r"optim\.momentums"):
        configs.from_json(json.dumps(tree))


def test_differences_name_what_matters_and_nothing_else():
    new = configs.override(
        BASE,
        ["optim.lr=1", "steps=5", "log.every=2", "mesh.fsdp=4", "options.levels=6"],
    )
    assert configs.differences(BASE, new) == [
        "optim.lr: 0.0002 -> 1.0",
        "options.levels: 5 -> 6",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=0", "steps is 0; want at least 1"),
        ("data.batch_size=0", "want at least 1"),
        ("optim.microbatches=3", "want a multiple of optim.microbatches"),
        ("optim.lr=0", "want more than 0"),
        ("optim.ema_decay=1.0", "want 0 to below 1"),
        ("data.min_crop=2", "min_crop"),
        ("data.masks=()", "at least one kind"),
        ("compute.dtype=float16", "want one of float32, bfloat16"),
        ("checkpoint.best_is=best", "want one of lowest, highest"),
        ("checkpoint.best=eval/center/psnr", "nothing is evaluated"),
        ("mesh.rules=(('a', 'fsd'),)", "did you mean 'fsdp'"),
    ],
)
def test_values_that_cannot_be_run_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        configs.check(configs.override(BASE, [setting]))


def test_a_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "partial_conv_photos64.py").write_text("")
    with pytest.raises(InputError, match="did you mean 'partial_conv_photos64'"):
        configs.load(tmp_path / "partial_conv_photo64.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no function config"),
        ("def config():\n    return 3", "no function config"),
        ("def config():\n    return 1 / 0", "ZeroDivisionError"),
        ("def config(:", "SyntaxError"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        configs.load(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_load_and_say_how_to_run_them(path):
    config = configs.load(path)
    config = configs.override(config, ["data.train=a", "data.validation=b"])
    configs.check(config)
    header = path.read_text().split('"""')[1]
    for word in ("train.py", path.name, "ardware", "ime", "core"):
        assert word in header, f"the header of {path.name} does not tell '{word}'"
    assert dataclasses.is_dataclass(config)
