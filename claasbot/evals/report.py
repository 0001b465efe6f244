"""The demonstration as one HTML page: what was said, what changed, and the curves. No script, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from claasbot.adapter_files import write_aside
from claasbot.evals.demo import ARMS, DemoResult
from claasbot.evals.runner import Scored
from claasbot.resources import templates_dir

_WIDTH, _HEIGHT, _PAD = 560, 200, 36
_COLOURS = {"preference": "#1f7a4d", "no_learning": "#8a8f98", "neutral": "#b7791f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One arm: words of its answers while it was taught, one point an answer."""

    arm: str
    colour: str
    points: str
    """As SVG wants them."""


def write_report(result: DemoResult, path: Path) -> None:
    """Write the page so that it is there whole or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        result=result,
        summary=result.summary(),
        curves=_curves(result),
        examples=_examples(result),
        width=_WIDTH,
        height=_HEIGHT,
        pad=_PAD,
        most_words=_most_words(result),
        colours=_COLOURS,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, page, mode=0o644)


def _examples(result: DemoResult) -> list[tuple[Scored, Scored]]:
    """Before and after of the first person who was taught."""
    taught = result.of("preference")
    return list(zip(taught[0].before.answers, taught[0].after.answers, strict=True)) if taught else []


def _curves(result: DemoResult) -> list[Curve]:
    most = _most_words(result)
    longest = max((len(one.remarks) for one in result.arms), default=1)
    curves = []
    for arm in ARMS:
        for one in result.of(arm):
            points = [
                (_PAD + index * (_WIDTH - 2 * _PAD) / max(1, longest - 1), _y(len(remark.answer.split()), most))
                for index, remark in enumerate(one.remarks)
            ]
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            curves.append(Curve(arm=arm, colour=_COLOURS[arm], points=text))
    return curves


def _y(n_words: int, most: int) -> float:
    return _HEIGHT - _PAD - n_words * (_HEIGHT - 2 * _PAD) / most


def _most_words(result: DemoResult) -> int:
    return max((len(remark.answer.split()) for one in result.arms for remark in one.remarks), default=1) or 1
