"""One lesson as a page draws it: where the time went, how the steps moved. Pure: rows in, shapes out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from claasbot.domain.adapter import version_name
from claasbot.domain.job import TrainingResult, result_from_json, stage_seconds
from claasbot.storage.rows import Row

# In the order in which they happen; what an engine adds to these comes after `save`.
STAGES = (
    "queue",
    "stage",
    "load",
    "teacher",
    "student",
    "backward",
    "optimizer",
    "score",
    "save",
    "hand-over",
    "canary",
    "gate",
)

CURVE_WIDTH, CURVE_HEIGHT = 320.0, 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One piece of the time bar, in percent of its length."""

    name: str
    seconds: float
    start: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One quantity over the steps, as points of an SVG polyline."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...]
    first: float
    last: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonView:
    row: Row
    version_name: str
    result: TrainingResult | None
    reasons: tuple[str, ...]
    """Why the gate refused it; empty when it passed or has not been judged."""
    segments: tuple[Segment, ...]
    total_s: float
    curves: tuple[Curve, ...]


def lesson_view(row: Row) -> LessonView:
    result = None if row["result_json"] is None else result_from_json(row["result_json"])
    segments = time_bar(json.loads(row["seconds_json"] or "{}"))
    curves: tuple[Curve, ...] = ()
    if result is not None:
        curves = (
            curve("loss", [step.loss for step in result.steps]),
            curve("KL from start", [step.kl_from_start_nats for step in result.steps]),
        )
    return LessonView(
        row=row,
        version_name=version_name(row["person_id"], row["version_n"]),
        result=result,
        reasons=tuple(json.loads(row["verdict_json"] or "[]")),
        segments=segments,
        total_s=sum(segment.seconds for segment in segments),
        curves=tuple(found for found in curves if found.dots),
    )


def time_bar(seconds: dict[str, float]) -> tuple[Segment, ...]:
    """The stages in order."""
    spent = stage_seconds(seconds)
    total = sum(spent.values())
    segments, start = [], 0.0
    for name in sorted(spent, key=_place):
        width = 100 * spent[name] / total
        segments.append(Segment(name=name, seconds=spent[name], start=round(start, 3), width=round(width, 3)))
        start += width
    return tuple(segments)


def _place(name: str) -> float:
    return STAGES.index(name) if name in STAGES else STAGES.index("save") + 0.5


def curve(name: str, values: list[float]) -> Curve:
    """Scaled to its own range; a value that is not finite has no dot."""
    finite = [value for value in values if math.isfinite(value)]
    lowest, highest = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = highest - lowest
    step = CURVE_WIDTH / max(1, len(values) - 1)
    dots = []
    for index, value in enumerate(values):
        if math.isfinite(value):
            height = (value - lowest) / span if span > 0 else 0.5
            dots.append((round(index * step, 2), round(CURVE_HEIGHT * (1 - height), 2)))
    return Curve(
        name=name,
        points=" ".join(f"{x},{y}" for x, y in dots),
        dots=tuple(dots),
        first=finite[0] if finite else math.nan,
        last=finite[-1] if finite else math.nan,
        lowest=lowest,
        highest=highest,
    )
