"""Random people: skin, hair, clothes, proportions, all from a seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .painting import Paint, Pattern

SKIN = np.array([(0.98, 0.85, 0.75), (0.93, 0.74, 0.60), (0.80, 0.58, 0.43), (0.58, 0.39, 0.27), (0.38, 0.25, 0.18)])
HAIR = np.array(
    [
        (0.10, 0.08, 0.07),
        (0.25, 0.16, 0.10),
        (0.45, 0.28, 0.15),
        (0.85, 0.68, 0.38),
        (0.65, 0.25, 0.12),
        (0.7, 0.7, 0.7),
    ]
)


@dataclass(frozen=True)
class Person:
    """How a synthetic person looks. Widths are radii in torso lengths (neck to middle of the hips)."""

    skin: Paint
    hair: Paint
    shirt: Paint
    trousers: Paint
    shoes: Paint
    eyes: Paint
    lips: Paint
    hair_style: str
    sleeves: str
    legwear: str
    head: float
    neck: float
    upper_arm: float
    forearm: float
    thigh: float
    calf: float
    foot: float
    chest: float
    proportions: dict[str, float]
    """Factors on a driving skeleton's bones: shoulders, hips, neck, torso, arms, legs, face."""


def random_person(random: np.random.Generator) -> Person:
    """A person drawn from a generator; equal generators give equal people."""
    skin = _mix(SKIN, random)
    hair = _mix(HAIR, random) if random.random() < 0.85 else _vivid(random)
    shirt = _cloth(random)
    one_piece = random.random() < 0.15
    trousers = shirt if one_piece else _cloth(random)
    build = random.uniform(0.85, 1.2)
    widths = {
        "head": 0.225 * random.uniform(0.92, 1.12),
        "neck": 0.085,
        "upper_arm": 0.095,
        "forearm": 0.075,
        "thigh": 0.15,
        "calf": 0.105,
        "foot": 0.075,
        "chest": 0.1,
    }
    bones = {name: random.uniform(0.9, 1.1) for name in ("shoulders", "neck", "torso", "arms", "legs", "face")}
    return Person(
        skin=Paint(skin),
        hair=Paint(hair),
        shirt=shirt,
        trousers=trousers,
        shoes=Paint(_any_colour(random)),
        eyes=Paint(np.array((0.08, 0.07, 0.08))),
        lips=Paint(skin * (0.85, 0.5, 0.5)),
        hair_style=str(
            random.choice(["short", "long", "bun", "bob", "cap", "bald"], p=[0.3, 0.25, 0.12, 0.15, 0.1, 0.08])
        ),
        sleeves=str(random.choice(["long", "short", "none"], p=[0.45, 0.4, 0.15])),
        legwear=str(random.choice(["trousers", "shorts", "skirt", "dress"], p=[0.55, 0.2, 0.15, 0.1])),
        **{name: width * (build if name not in ("head", "neck") else 1.0) for name, width in widths.items()},
        proportions=bones | {"hips": random.uniform(0.95, 1.35)},
    )


def _mix(palette: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A colour between two neighbours of a palette."""
    index = random.integers(len(palette) - 1)
    return palette[index] + random.random() * (palette[index + 1] - palette[index])


def _vivid(random: np.random.Generator) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0.5, 0.95), random.uniform(0.45, 0.95)))


def _any_colour(random: np.random.Generator) -> np.ndarray:
    if random.random() < 0.3:
        return np.full(3, random.uniform(0.08, 0.95)) * random.uniform(0.95, 1.0, 3)
    return _vivid(random)


def _cloth(random: np.random.Generator) -> Paint:
    """One colour, or two in a pattern of wide stripes, a gradient, or dots."""
    colour = _any_colour(random)
    if random.random() < 0.5:
        return Paint(colour)
    second = _any_colour(random) if random.random() < 0.5 else np.clip(colour * random.uniform(0.5, 1.6), 0, 1)
    period, phase = random.uniform(0.45, 0.9), random.random()

    def waves(place: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + 1.5 * np.sin(2 * np.pi * (place / period + phase)), 0, 1)

    patterns: list[Pattern] = [
        lambda along, across: waves(along),
        lambda along, across: waves(across),
        lambda along, across: np.clip(along / 1.1, 0, 1),
        lambda along, across: waves(along) * waves(across),
    ]
    return Paint(colour, second, patterns[random.integers(len(patterns))])
