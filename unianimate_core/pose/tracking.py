"""Who is who from frame to frame: an identity for every person found in a motion."""

from dataclasses import dataclass, field

import numpy as np

_BODY_POINTS = 24  # of a person's 134 points, those of body and feet, by which people are told apart

# How far, on average, a person's points may lie from where they are expected, as a share of the diagonal of their box;
# and how much farther, as a share of that, for every frame in which they were not found.
_REACH = 0.4
_REACH_GROWTH = 0.03
_OVERLAP_WEIGHT = 0.25  # of boxes that do not overlap, against points that lie a whole diagonal apart
_UNMATCHED = 0.6  # what it costs to find nobody for someone expected; more than a pair within reach
_BEYOND = 100.0
_SPEED_KEPT = 0.5  # share of a person's speed that is kept from one frame to the next
_DIAGONAL_KEPT = 0.95  # a person half hidden does not get small at once
_SMALLEST = 1e-3  # of the canvas's longer side: the diagonal of a person of a single point


@dataclass
class _Person:
    """Someone found, or followed; pixels and frames are the units."""

    points: np.ndarray  # 25 2: body, feet, the middle of the box; where each was last
    box: np.ndarray  # 4: x0 y0 x1 y1
    diagonal: float
    frame: int  # where found last
    number: int = -1
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))


def identify(people: list[list[np.ndarray]], size: np.ndarray, lost_frames: int) -> list[list[int | None]]:
    """Tell which people of successive frames are the same.

    Someone followed is expected where their points were last, moved on at their speed. Those found are given to those
    expected such that the distances of their points (as shares of the person's size) and the parts of their boxes that
    do not overlap are least in sum. Who is too far from everyone expected is somebody new. The order in which a frame
    lists its people does not count.

    Somebody new who is alone in a frame, while nobody from before is ever found again, is taken for the one seen last,
    however long ago and far away: the same dancer after a cut, or a long gap.

    Args:
        people: For each frame its people, each (134, 3): x and y as fractions, score; NaN where absent.
        size: Width and height in pixels, which make distances along both axes comparable.
        lost_frames: For how many frames somebody who is not found is waited for.

    Returns:
        For each frame and each of its people a number from 0, in order of appearance; None for people of no point.
    """
    numbers: list[list[int | None]] = []
    followed: list[_Person] = []
    count = 0
    for frame, group in enumerate(people):
        shown = [place for place, table in enumerate(group) if np.isfinite(table[:, 0]).any()]
        found = [_person(group[place], size, frame) for place in shown]
        followed = [person for person in followed if frame - person.frame <= lost_frames + 1]
        pairs = _assign(_costs(followed, found, frame)) if followed and found else []
        for who, which in pairs:
            found[which] = _moved(followed[who], found[which])
            followed[who] = found[which]
        for person in found:
            if person.number < 0:
                person.number, count = count, count + 1
                followed.append(person)
        numbers.append([None] * len(group))
        for place, person in zip(shown, found, strict=True):
            numbers[frame][place] = person.number
    return _join_lone_people(numbers)


def person_box(table: np.ndarray) -> np.ndarray:
    """Return the box around a person's (134 3) body and feet, or all points where none of those is there: 4."""
    body = table[:_BODY_POINTS, :2]
    points = body if np.isfinite(body).any() else table[:, :2]
    points = points[np.isfinite(points[:, 0])]
    return np.concatenate([points.min(0), points.max(0)])


def _person(table: np.ndarray, size: np.ndarray, frame: int) -> _Person:
    box = person_box(table) * np.tile(size, 2)
    diagonal = max(float(np.hypot(*(box[2:] - box[:2]))), _SMALLEST * max(size))
    points = np.vstack([table[:_BODY_POINTS, :2] * size, (box[:2] + box[2:]) / 2])  # 25 2
    return _Person(points, box, diagonal, frame)


def _moved(before: _Person, now: _Person) -> _Person:
    """Return someone followed as they are found now; points that are not, as if they had moved with the others."""
    ways = now.points - before.points  # 25 2; the middle of the box is never absent
    way = np.median(ways[np.isfinite(ways[:, 0])], 0)  # 2
    speed = _SPEED_KEPT * before.speed + (1 - _SPEED_KEPT) * way / (now.frame - before.frame)
    points = np.where(np.isnan(now.points), before.points + way, now.points)
    diagonal = max(now.diagonal, _DIAGONAL_KEPT * before.diagonal)
    return _Person(points, now.box, diagonal, now.frame, before.number, speed)


def _costs(followed: list[_Person], found: list[_Person], frame: int) -> np.ndarray:
    """Return how unlike each person followed each found one is, shape (followed, found)."""
    old, new = (
        {name: np.stack([getattr(person, name) for person in group]) for name in ("points", "box", "diagonal")}
        for group in (followed, found)
    )
    missed = np.array([frame - person.frame - 1 for person in followed])  # n
    way = np.stack([person.speed for person in followed]) * (missed[:, None] + 1)  # n 2
    diagonal = np.maximum(old["diagonal"][:, None], new["diagonal"])  # n m

    def distance(shift: np.ndarray) -> np.ndarray:
        expected = old["points"] + shift[:, None]  # n 25 2
        return np.nanmean(np.linalg.norm(expected[:, None] - new["points"], axis=-1), -1) / diagonal  # n m

    distances = distance(way)
    if missed.any():  # who was lost may have stopped where they were
        distances = np.where(missed[:, None] > 0, np.minimum(distances, distance(0 * way)), distances)
    costs = distances + _OVERLAP_WEIGHT * (1 - _overlaps(old["box"] + np.tile(way, 2), new["box"]))
    reach = _REACH * (1 + _REACH_GROWTH * missed)[:, None]  # n 1
    return np.where(distances <= reach, np.minimum(costs, _UNMATCHED), _BEYOND)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n 4 and m 4), shape (n, m)."""
    corners = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])  # n m 2
    common = np.maximum(corners[1] - corners[0], 0).prod(-1)
    areas = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b)]
    union = areas[0][:, None] + areas[1] - common
    return common / np.where(union > 0, union, 1)


def _assign(costs: np.ndarray) -> list[tuple[int, int]]:
    """Pair rows and columns (n m), each at most once, such that the costs and those of unpaired rows sum up to little.

    Starts with nobody paired and exchanges partners while that helps, the best exchange first.
    """
    rows, columns = costs.shape
    padded = np.zeros((rows + columns,) * 2)  # every row has a column for none, every column a row
    padded[:rows] = _UNMATCHED + 1e-6
    padded[:rows, :columns] = costs
    partner = np.concatenate([np.arange(columns, columns + rows), np.arange(columns)])
    everyone = np.arange(rows + columns)
    while True:
        exchanged = padded[:, partner]  # n n: what each would cost with the partner of each other
        own = exchanged[everyone, everyone]
        gain = own[:, None] + own - exchanged - exchanged.T
        one, other = np.unravel_index(gain.argmax(), gain.shape)
        if gain[one, other] < 1e-9:
            return [(row, int(partner[row])) for row in range(rows) if partner[row] < columns]
        partner[[one, other]] = partner[[other, one]]


def _join_lone_people(numbers: list[list[int | None]]) -> list[list[int | None]]:
    """Give somebody new who is alone, when nobody from before is found again, the number of the one seen last."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for frame, group in enumerate(numbers):
        for number in group:
            if number is not None:
                first.setdefault(number, frame)
                last[number] = frame
    names: dict[int, int] = {}
    seen: list[int] = []  # the last frame of each name
    for number, frame in first.items():  # in order of appearance
        alone = sum(other is not None for other in numbers[frame]) == 1
        names[number] = int(np.argmax(seen)) if seen and alone and max(seen) < frame else len(seen)
        if names[number] == len(seen):
            seen.append(0)
        seen[names[number]] = last[number]
    return [[None if number is None else names[number] for number in group] for group in numbers]
