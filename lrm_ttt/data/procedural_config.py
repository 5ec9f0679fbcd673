"""What procedural scenes are drawn from; free of torch, so that configurations load at once."""

import dataclasses

from lrm_ttt.errors import InvalidConfig

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class CameraRanges:
    """How cameras of one kind of scene are spread; degrees, lengths in units of the object's radius (rooms: of the
    desk's things).

    The field of view is that of the shorter side. `fill` is the apparent diameter of the bounding ball over that
    side; it decides the distance within `distance`. `elevation` limits each camera, `ring_elevation` the middle of a
    scene's cameras. A share `around` of the scenes has cameras on full circles, the others on arcs of `arc`. `reach`
    widens the arc and the elevations of targets over those of inputs.
    """

    field_of_view: Range = (30.0, 65.0)
    fill: Range = (0.8, 1.6)
    distance: Range = (1.9, 4.0)
    elevation: Range = (-20.0, 80.0)
    ring_elevation: Range = (-5.0, 50.0)
    around: float = 0.6
    arc: Range = (60.0, 180.0)
    reach: float = 1.1


OBJECT_CAMERAS = CameraRanges()
ROOM_CAMERAS = CameraRanges(
    field_of_view=(45.0, 75.0),
    fill=(0.6, 1.3),
    distance=(1.35, 2.2),
    elevation=(8.0, 65.0),
    ring_elevation=(15.0, 45.0),
    around=0.2,
    arc=(50.0, 150.0),
)


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
    """What `sample_batch` draws from.

    `image_size` is height, width in pixels. `num_inputs` is an inclusive range from which each batch draws one
    number. `room_fraction` is the share of batches that show rooms (something everywhere, no masks) rather than
    objects on a plain background. `texture_smoothness` 0..1 is the share of plain, cloudy and graded textures among
    all. `max_primitives` limits the parts of an object. `antialias` samples outlines and creases four times, at about
    twice the cost.
    """

    image_size: tuple[int, int] = (64, 64)
    num_inputs: tuple[int, int] = (4, 12)
    num_targets: int = 4
    room_fraction: float = 0.3
    texture_smoothness: float = 0.6
    max_primitives: int = 32
    antialias: bool = True
    object_cameras: CameraRanges = OBJECT_CAMERAS
    room_cameras: CameraRanges = ROOM_CAMERAS

    def __post_init__(self) -> None:
        """Refuse values that no batch can be drawn from."""
        if min(self.image_size) < 1:
            raise InvalidConfig(f"image_size {self.image_size} has no pixels; give height and width of at least 1")
        if not 1 <= self.num_inputs[0] <= self.num_inputs[1]:
            raise InvalidConfig(
                f"num_inputs {self.num_inputs} is no range; give the least (at least 1) and the greatest number"
            )
        if self.num_targets < 0:
            raise InvalidConfig(f"num_targets is {self.num_targets}; give 0 or more")
        if self.max_primitives < 1:
            raise InvalidConfig(f"max_primitives is {self.max_primitives}; give 1 or more")
        for name in ("room_fraction", "texture_smoothness"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfig(f"{name} is {getattr(self, name)}; give a share between 0 and 1")
