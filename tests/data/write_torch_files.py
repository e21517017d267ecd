"""Writes the files of `torch.save` that tests/test_torch_file.py reads; needs PyTorch.

python tests/data/write_torch_files.py        # with torch 2.13.0, into this folder
"""

import collections
import os
import sys
import warnings
from pathlib import Path

import torch

KINDS = [
    *("float64", "float32", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("float8_e8m0fnu", "int64", "int32", "int16", "int8"),
    *("uint64", "uint32", "uint16", "uint8", "bool", "complex128", "complex64"),
]


class Command:
    """What an attacker would put in a file."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


def write_all(folder: Path) -> None:
    powers = torch.tensor([[1, 2, 4], [8, 16, 32]])
    torch.save(
        {kind: powers.to(getattr(torch, kind)) for kind in KINDS}, folder / "dtypes.pth"
    )
    torch.save(views(), folder / "views.pth")
    torch.save(views(), folder / "views_protocol5.pth", pickle_protocol=5)
    torch.save(containers(), folder / "containers.pth")
    torch.save({"epoch": 3, "state_dict": network()}, folder / "state_dict.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = torch.arange(4, dtype=torch.int16)
        storages = {
            "typed": values.storage(),
            "untyped": values.clone().untyped_storage(),
        }
        torch.save(storages, folder / "storages.pth")
        script = torch.jit.script(torch.nn.ReLU())
    torch.jit.save(script, str(folder / "script.pt"))
    torch.save(torch.nn.Linear(2, 2), folder / "module.pth")
    torch.save({"weight": Command()}, folder / "command.pth")
    torch.save({"x": torch.eye(2).to_sparse()}, folder / "sparse.pth")
    for name, value in {"views": views(), "containers": containers()}.items():
        path = folder / f"legacy_{name}.pth"
        torch.save(value, path, _use_new_zipfile_serialization=False)


def views() -> dict[str, object]:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    marked = torch.nn.Parameter(base[0].clone())
    marked.note = "an attribute"
    return {
        "base": base,
        "transposed": base.T,
        "offset": base[1:, 2:],
        "stepped": base[::2, ::3],
        "expanded": base[:, :1].expand(3, 5),
        "scalar": base[2, 3],
        "empty": torch.empty(0, 7),
        "conjugate": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "parameter": torch.nn.Parameter(base.clone()),
        "marked": marked,
        "bfloat16": base.to(torch.bfloat16).T,
        "bits": base.to(torch.bfloat16).view(torch.uint16)[1],
    }


def containers() -> dict[object, object]:
    ordered = collections.OrderedDict(a=torch.ones(1), b=[1, 2.5, "three", None])
    return {
        "ordered": ordered,
        "same": ordered,
        "nested": {"tuple": (True, False, (1,), (1, 2), (1, 2, 3, 4)), 7: -(2**70)},
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "complex": 1 + 2j,
        "bytes": b"\x00\xff",
        "empty": ((), [], {}),
    }


def network() -> dict[str, torch.Tensor]:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (5, 4)),
        torch.nn.BatchNorm2d(3),
        torch.nn.ConvTranspose2d(3, 2, (2, 3), bias=False),
        torch.nn.Linear(4, 6),
    )
    with torch.no_grad():
        for number, value in enumerate(layers.state_dict().values()):
            value.copy_(torch.arange(value.numel()).reshape(value.shape) + number)
    return torch.nn.DataParallel(layers).state_dict()


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
