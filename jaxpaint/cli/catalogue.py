"""What the files of the methods say about themselves, read as source.

Names, descriptions and options are needed for help and for error messages, which
must come at once; importing a method would first import jax.
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jaxpaint
from jaxpaint.errors import InputError, unknown_name

FOLDER = Path(jaxpaint.__path__[0]) / "methods"

TRAINING = ("optim", "compute")
"""Options that a training run sets for every method."""

TYPES = {"bool": bool, "int": int, "float": float, "str": str}


class Option(NamedTuple):
    """An option of a method: annotation and default of an argument of `make`."""

    annotation: ast.expr | None
    default: ast.expr | None


def names() -> list[str]:
    """Returns the names of all methods, sorted; equal to `jaxpaint.methods.names()`."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if p.name[0] != "_")


def check_method(name: str) -> None:
    """Raises InputError, with the nearest name, unless there is a method `name`."""
    if name not in names():
        raise unknown_name("method", name, names())


def summary(name: str) -> str:
    """Returns the first line of the docstring of a method."""
    return (ast.get_docstring(_source(name)) or "").partition("\n")[0]


def options(name: str) -> dict[str, Option]:
    """Returns the options of a method, by name, without those of its training."""
    for node in _source(name).body:
        if isinstance(node, ast.FunctionDef) and node.name == "make":
            plain = node.args.posonlyargs + node.args.args
            missing = [None] * (len(plain) - len(node.args.defaults))
            defaults = [*missing, *node.args.defaults, *node.args.kw_defaults]
            arguments = plain + node.args.kwonlyargs
            return {
                argument.arg: Option(argument.annotation, default)
                for argument, default in zip(arguments, defaults, strict=True)
                if argument.arg not in TRAINING
            }
    return {}


def defaults(name: str) -> dict[str, object]:
    """Returns the default values of the options that have one, by name."""
    return {
        option: _literal(about.default)
        for option, about in options(name).items()
        if about.default is not None
    }


def describe_options(name: str) -> str:
    """Returns the options of a method as `name: type = default, ...`."""
    return ", ".join(
        option
        + (f": {ast.unparse(about.annotation)}" if about.annotation else "")
        + (f" = {ast.unparse(about.default)}" if about.default else "")
        for option, about in options(name).items()
    )


def parse_options(method: str, settings: Sequence[str]) -> dict[str, object]:
    """Returns the values of `NAME=VALUE` settings for a method, in their right types.

    Values are Python literals; what is none is taken as a string.

    Raises:
      InputError: no `=`, an option given twice or unknown, or a value of another type.
    """
    known = options(method)
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--option '{setting}' has no '='; want NAME=VALUE")
        if not known:
            raise InputError(f"method '{method}' has no options; got '{name}'")
        if name not in known:
            raise unknown_name(f"option of method '{method}'", name, known)
        if name in values:
            raise InputError(f"--option '{name}' is given twice; drop one")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            value = text
        values[name] = _checked(value, known[name], f"'{name}' of method '{method}'")
    return values


def _source(name: str) -> ast.Module:
    return ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def _literal(node: ast.expr) -> object:
    """Returns the value of an expression, or its source where that needs running."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _checked(value: object, option: Option, what: str) -> object:
    annotation = option.annotation
    if annotation is None and option.default is not None:
        annotation = ast.Name(type(_literal(option.default)).__name__)
    if annotation is not None and not _fits(value, annotation):
        wanted = ast.unparse(annotation)
        raise InputError(f"option {what} is {value!r}; want {wanted}")
    if isinstance(value, int) and isinstance(annotation, ast.Name):
        return float(value) if annotation.id == "float" else value
    return value


def _fits(value: object, annotation: ast.expr) -> bool:
    """Returns whether a literal has the annotated type; unknown types accept all."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Constant(value=None) | ast.Name(id="NoneType"):
            return value is None
        case ast.Name(id="float"):
            return type(value) in (int, float)
        case ast.Name(id=name) if name in TYPES:
            return type(value) is TYPES[name]
        case ast.Subscript(value=ast.Name(id="tuple")):
            return isinstance(value, tuple)
    return True
