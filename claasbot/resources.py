"""Where the files lie that are shipped but are not code: dashboard templates and eval suites.

An installed wheel carries them inside the package, a checkout at its top. Refuses to guess further: a folder that is in
neither place is a broken installation.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """Dashboard HTML and its vendored static files."""
    return _shipped("_templates", "templates")


def suites_dir() -> Path:
    """The eval suites and the fixed probes, one JSON file each."""
    return _shipped("_suites", "data/suites")


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    places = (PACKAGE / in_wheel, PACKAGE.parent / in_checkout)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"neither {places[0]} nor {places[1]} is there; install claasbot again")
