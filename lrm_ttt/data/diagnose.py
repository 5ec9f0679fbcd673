"""Find the usual mistakes in the cameras of a capture, by what its images show.

Points are matched between views, and their epipolar errors compared under the cameras as given and under each mistake
undone: whichever agrees with the images clearly better than the cameras as given names the mistake.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.dataset import SceneDataset
from lrm_ttt.data.epipolar import Evidence, agreement, gather_evidence, rays
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.mistakes import Mistake, undo_camera_mistakes, undo_lens_mistakes
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene

VIEWS_LOOKED_AT = 20
# Agreement of right cameras is 0.5 to 0.8, of wrong ones below 0.1 in most captures and 0.45 at the very most.
LEAST_GAIN, LEAST_AGREEMENT = 0.08, 0.2
# A lens changes little, but all pairs alike: the gain must be this many standard errors of its mean over the pairs.
LEAST_LENS_GAIN, STANDARD_ERRORS = 0.02, 3.0
LEAST_CONNECTED = 0.5
# Less than this proves nothing against cameras: with so many mistakes to try, one fits a few wrong matches by chance.
FEWEST_MATCHES = 100
# Images with fewer corners have too little texture to tell; photographs have twice as many.
FEWEST_FEATURES = 500
UNDECIDED = "undecided"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found out about a scene.

    `mistake` is None where cameras and images agree; `agreement` is the share 0..1 of matched points that the cameras
    as given explain, `agreement_undone` that with the mistake undone. Both are None where there is nothing to compare.
    """

    scene: str
    mistake: Mistake | None
    num_views: int = 0
    num_pairs: int = 0
    agreement: float | None = None
    agreement_undone: float | None = None

    @property
    def is_sound(self) -> bool:
        """Say whether no mistake was found; where the images do not tell, none was."""
        return self.mistake is None or self.mistake.kind == UNDECIDED

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        said = "" if self.agreement is None else f"{self.agreement:.0%} of the matched points agree with the cameras"
        if self.mistake is None:
            return f"{self.scene}: sound; {said} ({self.num_pairs} pairs of {self.num_views} views)"
        if self.agreement_undone is not None:
            said += f", {self.agreement_undone:.0%} once that is undone"
        return f"{self.scene}: {self.mistake.kind}: {self.mistake.message}" + (f" ({said})" if said else "")


def examine_dataset(dataset: SceneDataset, number: int | None, seed: int) -> Iterator[Diagnosis]:
    """Examine `number` scenes of a data set, drawn from `seed` (None: all), in the order in which they lie."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    for index in sorted(order[:number].tolist()):
        name = dataset.scene_name(index)
        try:
            yield dataclasses.replace(examine(dataset.open(index)), scene=name)
        except UnreadableScene as error:
            yield Diagnosis(name, Mistake("unreadable", str(error)))


def examine(source: SceneSource) -> Diagnosis:
    """Compare the cameras of a scene with its images; takes a few seconds.

    Raises `UnreadableScene` for an image that cannot be decoded.
    """
    mistake = _without_images(source)
    if mistake is not None:
        return Diagnosis(source.name, mistake, source.num_views)
    evidence = gather_evidence(source, _spread(source.num_views))
    if _too_little_shared(evidence) is not None and source.num_views > VIEWS_LOOKED_AT:
        # A long walk may leave nothing in common to views so far apart.
        start = (source.num_views - VIEWS_LOOKED_AT) // 2
        evidence = gather_evidence(source, range(start, start + VIEWS_LOOKED_AT))
    return judge(source.name, evidence)


def _spread(num_views: int) -> list[int]:
    number = min(VIEWS_LOOKED_AT, num_views)
    return [round(at * (num_views - 1) / max(number - 1, 1)) for at in range(number)]


def judge(name: str, evidence: Evidence) -> Diagnosis:
    """Say which mistake, undone, makes the cameras agree with the images; which agree already have none."""
    number, num_pairs = evidence.num_views, evidence.matches.num_pairs
    too_little = _too_little_shared(evidence)
    if num_pairs == 0:
        return Diagnosis(name, too_little, number)
    as_given = _scores(evidence, evidence.cameras.cam_to_world, evidence.cameras.intrinsics, evidence.lenses)
    given = float(as_given.mean())
    if len(evidence.matches.pair) < FEWEST_MATCHES:
        return Diagnosis(name, too_little, number, num_pairs, given)
    named, undone = _camera_mistake(evidence, given) or _lens_mistake(evidence, as_given) or (None, None)
    if named is None and given < LEAST_AGREEMENT:
        named = Mistake(
            "misfit",
            "the cameras do not fit the images, and none of the usual mistakes explains it. Check that each image has "
            "the camera of its own (same order, same names), or estimate the poses again.",
        )
    return Diagnosis(name, named or too_little, number, num_pairs, given, undone)


def _without_images(source: SceneSource) -> Mistake | None:
    """Return what is wrong with the cameras whatever the images show."""
    if not bool(source.cam_to_world.isfinite().all() and source.intrinsics.isfinite().all()):
        return Mistake("not a number", "a camera holds NaN or infinity. Remove that view, or write its camera again.")
    centres = source.cam_to_world[:, :3, 3]
    if float((centres - centres[0]).norm(dim=1).max()) <= 1e-6 * (1 + float(centres.norm(dim=1).max())):
        return Mistake(
            "one place",
            "all cameras stand in one place, so depth cannot be seen. Check that the translations were written, or "
            "move while taking the pictures.",
        )
    return None


def _too_little_shared(evidence: Evidence) -> Mistake | None:
    matches = evidence.matches
    connected = matches.views_of(torch.ones(matches.num_pairs, dtype=torch.bool))
    enough = len(connected) >= LEAST_CONNECTED * evidence.num_views
    if enough and len(matches.pair) >= FEWEST_MATCHES:
        return None
    shared = f"{len(connected)} of {evidence.num_views} views show things that another of them shows too"
    if evidence.num_still > matches.num_pairs:
        return Mistake(
            "still camera", "the views show the same from the same place. Move the camera while taking the pictures."
        )
    if evidence.num_features < FEWEST_FEATURES:
        return Mistake(UNDECIDED, f"the images have too little texture to tell: {shared}.")
    return Mistake("too little overlap", f"only {shared}. Take more pictures between them.")


def _scores(
    evidence: Evidence,
    cam_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
    lenses: tuple[Distortion | None, ...],
) -> Float[Tensor, "pairs"]:
    return agreement(evidence.matches, rays(evidence.matches, intrinsics, lenses), cam_to_world)


def _camera_mistake(evidence: Evidence, given: float) -> tuple[Mistake, float] | None:
    """Return the mistake that, undone, explains clearly more of the matches, and how much."""
    best: tuple[Mistake, float] | None = None
    for intrinsics, poses in undo_camera_mistakes(evidence.cameras):
        through = rays(evidence.matches, intrinsics, evidence.lenses)
        for mistake, cam_to_world in poses:
            score = float(agreement(evidence.matches, through, cam_to_world).mean())
            if best is None or score > best[1]:
                best = mistake, score
    assert best is not None
    return best if best[1] >= max(given + LEAST_GAIN, LEAST_AGREEMENT) else None


def _lens_mistake(evidence: Evidence, given: Float[Tensor, "pairs"]) -> tuple[Mistake, float] | None:
    cameras = evidence.cameras
    # A lens bends what right cameras show; it cannot mend wrong ones.
    if given.mean() < LEAST_AGREEMENT:
        return None

    def scores(lenses: tuple[Distortion | None, ...]) -> Float[Tensor, "pairs"]:
        return _scores(evidence, cameras.cam_to_world, cameras.intrinsics, lenses)

    mistake, undone = undo_lens_mistakes(evidence.cameras, evidence.lenses, scores)
    gain = undone - given
    error = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else torch.tensor(float("inf"))
    clear = gain.mean() > LEAST_LENS_GAIN and gain.mean() > STANDARD_ERRORS * error
    return (mistake, float(undone.mean())) if bool(clear) else None
