"""Lists the methods, the packages with versions and licences, and the devices."""

import argparse
import platform
from importlib import metadata

from jaxpaint import weights
from jaxpaint.cli import catalogue
from jaxpaint.cli.sample import WEIGHTS
from jaxpaint.version import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "tensorflow-datasets",
    "pillow",
    "tqdm",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `jaxpaint info`: none."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Prints the lists; returns the exit code."""
    del args
    print(f"jaxpaint {__version__} (Apache-2.0), Python {platform.python_version()}")
    print("\nmethods")
    for name in catalogue.names():
        print(f"  {name:24}{catalogue.summary(name)}")
    print("\nweights that come with it (model cards beside them)")
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        side, megabytes = weights.read(path).image_size, path.stat().st_size / 1e6
        about = f"RGB, trained at {side}x{side}, {megabytes:.1f} MB, Apache-2.0"
        print(f"  {path.stem:24}{about}  {path}")
    print("\npackages")
    for name in PACKAGES:
        print(f"  {name:24}{_version_and_licence(name)}")
    print("\ndevices", flush=True)  # before the seconds that jax takes to start
    import jax

    for device in jax.devices():
        print(f"  {device.platform}:{device.id:<20}{device.device_kind}")
    return 0


def _version_and_licence(name: str) -> str:
    """Returns what the metadata of an installed package say."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    classifiers = about.get_all("Classifier") or []
    classified = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License")]
    # Older packages put the whole text of the licence into this field.
    plain = str(about.json.get("license", "")).partition("\n")[0]
    licence = about.json.get("license_expression") or ", ".join(classified) or plain
    return f"{about['Version']:12}{licence}"
