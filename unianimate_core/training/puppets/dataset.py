"""Writes synthetic people as a folder of videos with their motions, as `unianimate train` and `evaluate` read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...pose.files import write_motion
from ...pose.keypoints import BODY_JOINTS, MotionTrack
from ...unet.config import check_size
from ...video import VideoWriter
from .drawing import PARTS, Drawn, draw_person
from .motions import frame, vary, with_proportions
from .people import random_person
from .scenes import random_scene
from .skeleton import random_motion

FPS = 30
TORSO = [BODY_JOINTS.index(name) for name in ("neck", "right_hip", "left_hip")]


@dataclass(frozen=True)
class Recipe:
    """What the clips of a folder are made from.

    Attributes:
        width: Of the pictures, pixels, a multiple of 8.
        height: Of the pictures, pixels, a multiple of 8.
        frames: Of each clip, 1 or more.
        seed: Clip i of a seed is the same whatever the number of clips.
        motions: Driving motions; one is taken for each clip.
        generated: Share 0-1 of the clips that move by a generated motion; 1 where there are no driving motions.
        exact: Driving motions are not varied: each clip shows all of one, its frames as equally
            spaced as whole frames can be.
    """

    width: int = 128
    height: int = 192
    frames: int = 24
    seed: int = 0
    motions: Sequence[MotionTrack] = ()
    generated: float = 0.5
    exact: bool = False

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        check_size(self.width, self.height)
        if self.frames < 1:
            raise InputError(f"frames is {self.frames}: give 1 or more")
        if not 0 <= self.generated <= 1:
            raise InputError(f"generated is {self.generated}: give a share, 0 to 1")
        if self.exact and not self.motions:
            raise InputError("exact motions need a motion: give one")
        for number, motion in enumerate(self.motions):
            if not np.isfinite(motion.body[:, TORSO]).all((1, 2)).any():
                raise InputError(f"motion {number} never shows neck and hips: a person cannot be drawn on it")

    def plain(self) -> dict[str, Any]:
        """What tells this recipe from another, as JSON holds it."""
        digests = [hashlib.sha256(motion.body.tobytes()).hexdigest()[:16] for motion in self.motions]
        return dataclasses.asdict(dataclasses.replace(self, motions=())) | {"motions": digests}


def make_clip(recipe: Recipe, index: int) -> tuple[Drawn, MotionTrack]:
    """Clip ``index`` of a recipe: a random person in a random scene, and the person's own joints."""
    random = np.random.default_rng((recipe.seed, index))
    person = random_person(random)
    clothes = np.stack([person.shirt.colour, person.trousers.colour, person.skin.colour])
    scene = random_scene(random, recipe.width, recipe.height, clothes)
    if recipe.exact:
        driving = recipe.motions[index % len(recipe.motions)]
        body = _square(driving)[np.linspace(0, len(driving) - 1, recipe.frames).round().astype(int)]
    elif not recipe.motions or random.random() < recipe.generated:
        body = random_motion(random, recipe.frames)
    else:
        body = vary(_square(recipe.motions[random.integers(len(recipe.motions))]), random, recipe.frames)
    track = frame(with_proportions(body, person), random, recipe.width, recipe.height)
    return draw_person(person, scene, track), track


def write_puppets(
    folder: Path,
    recipe: Recipe,
    count: int,
    parts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write clips 0 to count - 1 of a recipe.

    Args:
        folder: Gets ``person_00000.mkv`` (FFV1, lossless) and ``person_00000.json`` (`POSE_KEYPOINT`) of each clip,
            and the recipe. Clips that are there already are left alone, so an interrupted run goes on.
        recipe: What they show.
        count: How many.
        parts: Write ``parts/person_00000.npz`` too: labels f H W, names of the parts, background H W 3.
        progress: Called with (done, total) after every clip.

    Raises:
        InputError: A value of the recipe is out of range, or the folder holds clips of another recipe.
    """
    recipe.check()
    if count < 1:
        raise InputError(f"count is {count}: give 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe)
    for index in range(count):
        video, motion = folder / f"person_{index:05d}.mkv", folder / f"person_{index:05d}.json"
        labels = folder / "parts" / f"person_{index:05d}.npz"
        if not motion.exists() or (parts and not labels.exists()):  # the motion is written last
            drawn, track = make_clip(recipe, index)
            if parts:
                labels.parent.mkdir(exist_ok=True)
                np.savez_compressed(labels, labels=drawn.labels, names=PARTS, background=drawn.background)
            with VideoWriter(video, recipe.width, recipe.height, FPS, overwrite=True, lossless=True) as writer:
                writer.write(drawn.frames)
            write_motion(track, motion, overwrite=True)
        if progress is not None:
            progress(index + 1, count)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Note the folder's recipe; one folder holds one."""
    path, plain = folder / "recipe.json", recipe.plain()
    if not path.exists():
        path.write_text(json.dumps(plain, indent=2), encoding="utf-8")
        return
    present = json.loads(path.read_text(encoding="utf-8"))
    if different := sorted(name for name in plain if plain[name] != present.get(name)):
        shown = ", ".join(f"{name} {present.get(name)} there, {plain[name]} now" for name in different)
        raise InputError(f"{folder} holds clips of another recipe ({shown}): give another folder")


def _square(track: MotionTrack) -> np.ndarray:
    """Joints f 20 2 in heights of the canvas, so that x and y have one unit."""
    return track.body * (track.width / track.height, 1.0)
