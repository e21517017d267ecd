"""The one exception for input that a person can mend, and name suggestions."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that the caller can mend; says what was got, what is wanted, and the fix.

    The command line prints it as one line and exits with 2.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> InputError:
    """Returns the error for a `name` none of the `known`, with the nearest of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return InputError(f"unknown {what} '{name}'; {hint}")
