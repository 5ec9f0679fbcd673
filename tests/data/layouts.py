"""Write scenes whose views are exactly known in every layout that data sets have on disk, 8 bit and lossless.

Conventions are taken from the formats' own programs, and written here without any of the library's readers.
"""

import dataclasses
import functools
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrm_ttt.data.procedural import Kind, procedural_capture
from lrm_ttt.scene.views import Views
from tests.data.captures import OPENCV_TO_OPENGL, wxyz

Scenes = Mapping[str, Views]


@functools.cache
def drawn(seed: int, kind: Kind, height: int, width: int, num_views: int = 3) -> Views:
    """Return a procedural capture."""
    return procedural_capture(seed, num_views, (height, width), kind)


def rgb(views: Views, index: int) -> Image.Image:
    """Return the picture as it is seen."""
    return Image.fromarray(_eight_bit(views.images[index]))


def rgba(views: Views, index: int) -> Image.Image:
    """Return straight colours and alpha that give the picture on white, to half a step of 8 bit."""
    assert views.masks is not None
    alpha = (views.masks[index] * 255).round() / 255
    straight = (views.images[index] - (1 - alpha)) / alpha.clamp(min=1 / 255)
    return Image.fromarray(_eight_bit(torch.cat([straight, alpha])))


def _eight_bit(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def save(image: Image.Image, path: Path) -> None:
    """Save an image, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def smaller(views: Views) -> Views:
    """Return views of half the size, each pixel the mean of four."""
    images = torch.nn.functional.avg_pool2d(views.images, 2)
    size = type(views.image_size)(*images.shape[-2:])
    return Views(images, dataclasses.replace(views.cameras, intrinsics=views.cameras.intrinsics / 2, image_size=size))


def opengl(views: Views) -> np.ndarray:
    """Return camera-to-world matrices of OpenGL cameras."""
    return views.cameras.cam_to_world.double().numpy() @ OPENCV_TO_OPENGL


def world_to_cam(views: Views) -> np.ndarray:
    """Return world-to-camera matrices of OpenCV cameras."""
    return np.linalg.inv(views.cameras.cam_to_world.double().numpy())


def write_dl3dv_scene(folder: Path, views: Views) -> None:
    """Write images_4 and images_8 with the transforms.json of frames four times as large."""
    height, width = views.image_size
    fx, fy, cx, cy = (4 * views.cameras.intrinsics[0].double()).tolist()
    frames = []
    for index, matrix in enumerate(opengl(views).tolist()):
        name = f"frame_{index + 1:05d}.png"
        save(rgb(views, index), folder / "images_4" / name)
        save(rgb(smaller(views), index), folder / "images_8" / name)
        frames.append({"file_path": f"images/{name}", "transform_matrix": matrix, "colmap_im_id": index + 1})
    content = {"w": 4 * width, "h": 4 * height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    content |= {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "camera_model": "OPENCV", "frames": frames}
    content["applied_transform"] = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
    (folder / "transforms.json").write_text(json.dumps(content))


def write_dl3dv(root: Path, scenes: Scenes) -> None:
    """Write DL3DV-ALL: a folder per thousand scenes, and beside it what the download leaves."""
    for name, views in scenes.items():
        write_dl3dv_scene(root / "1K" / name, views)
    (root / ".cache").mkdir()
    (root / "1K" / ".gitattributes").write_text("")


def write_dl3dv_benchmark(root: Path, scenes: Scenes) -> None:
    """Write DL3DV-Benchmark, which has a COLMAP model beside each capture."""
    for name, views in scenes.items():
        write_dl3dv_scene(root / name / "nerfstudio", views)
        write_colmap_scene(root / name / "gaussian_splat", views)
    (root / "benchmark-meta.csv").write_text("hash\n" + "\n".join(scenes))


def write_nerfstudio(root: Path, scenes: Scenes) -> None:
    """Write captures with depths: millimetres of 16 bit before `applied_scale`."""
    for name, views in scenes.items():
        write_dl3dv_scene(root / name, views)
        assert views.depths is not None
        scale = depth_unit(views) * 1000
        content = json.loads((root / name / "transforms.json").read_text())
        content["applied_scale"] = scale
        for index, frame in enumerate(content["frames"]):
            frame["depth_file_path"] = f"depths/{index:03d}.png"
            save(depth_image(views.depths[index], scale / 1000), root / name / frame["depth_file_path"])
        (root / name / "transforms.json").write_text(json.dumps(content))


def depth_unit(views: Views) -> float:
    """Return the step in which depths of 16 bit hold a scene."""
    assert views.depths is not None
    return float(views.depths.max()) / 60_000


def depth_image(depth: Tensor, unit: float) -> Image.Image:
    """Return depths `[1 h w]` as 16 bit greyscale."""
    return Image.fromarray((depth[0].double() / unit).round().numpy().astype(np.uint16))


def write_opencv_cameras(root: Path, scenes: Scenes) -> None:
    """Write Objaverse renders as LaCT has them: a bare list of frames, RGBA."""
    for name, views in scenes.items():
        fx, fy, cx, cy = views.cameras.intrinsics[0].double().tolist()
        shared = {"w": views.image_size.width, "h": views.image_size.height, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
        frames = []
        for index, matrix in enumerate(world_to_cam(views).tolist()):
            frames.append({**shared, "w2c": matrix, "file_path": f"renderings/{index:08d}_rgba.png"})
            save(rgba(views, index), root / name / frames[-1]["file_path"])
        (root / name / "opencv_cameras.json").write_text(json.dumps(frames))


def write_listed(root: Path, scenes: Scenes) -> None:
    """Write the same, and the list of its files that LaCT trains from."""
    write_opencv_cameras(root / "renders", scenes)
    places = [f"renders/{name}/opencv_cameras.json" for name in scenes]
    (root / "objaverse_data_path.json").write_text(json.dumps(places))


def with_lens(views: Views, focal_over_width: float) -> Views:
    """Return views with the intrinsics that a layout always has."""
    height, width = views.image_size
    focal = focal_over_width * width
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2]).expand(*views.shape, 4)
    return dataclasses.replace(views, cameras=dataclasses.replace(views.cameras, intrinsics=intrinsics))


def write_zero123(root: Path, scenes: Scenes) -> None:
    """Write `000.png` and `000.npy`: world-to-camera of Blender's own cameras, lens 35 mm on a sensor of 32 mm."""
    for name, views in scenes.items():
        for index, matrix in enumerate(np.linalg.inv(opengl(views))):
            save(rgba(views, index), root / name / f"{index:03d}.png")
            np.save(root / name / f"{index:03d}.npy", matrix[:3])


def write_gobjaverse(root: Path, scenes: Scenes) -> None:
    """Write a folder per view, in which a .json names the axes of Blender's camera and its place."""
    for name, views in scenes.items():
        for index, matrix in enumerate(opengl(views)):
            folder = root / "0" / name / "campos_512_v4" / f"{index:05d}"
            save(rgba(views, index), folder / f"{index:05d}.png")
            axes = {key: matrix[:3, column].tolist() for column, key in enumerate(("x", "y", "z", "origin"))}
            (folder / f"{index:05d}.json").write_text(json.dumps({**axes, "max_depth": 5.0}))


def write_colmap_scene(folder: Path, views: Views) -> None:
    """Write a COLMAP text model."""
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    parameters = " ".join(map(repr, views.cameras.intrinsics[0].double().tolist()))
    size = f"{views.image_size.width} {views.image_size.height}"
    (sparse / "cameras.txt").write_text(f"1 PINHOLE {size} {parameters}\n")
    (sparse / "points3D.txt").write_text("")
    rows = []
    for index, matrix in enumerate(world_to_cam(views)):
        save(rgb(views, index), folder / "images" / f"{index:03d}.png")
        pose = " ".join(repr(float(value)) for value in (*wxyz(matrix[:3, :3]), *matrix[:3, 3]))
        rows.append(f"{index + 1} {pose} 1 {index:03d}.png\n\n")
    (sparse / "images.txt").write_text("".join(rows))


def write_colmap(root: Path, scenes: Scenes) -> None:
    """Write COLMAP captures, such as those of Tanks and Temples."""
    for name, views in scenes.items():
        write_colmap_scene(root / name, views)


def chunk_scene(key: str, views: Views) -> dict[str, object]:
    """Return a scene as pixelSplat's chunks hold it."""
    height, width = views.image_size
    shares = views.cameras.intrinsics.double() / torch.tensor([width, height, width, height])
    poses = torch.from_numpy(world_to_cam(views)[:, :3].reshape(len(shares), 12))
    images = [torch.frombuffer(bytearray(png(rgb(views, index))), dtype=torch.uint8) for index in range(len(shares))]
    cameras = torch.cat([shares, torch.zeros(len(shares), 2), poses], 1).float()
    return {"key": key, "url": "", "timestamps": torch.arange(len(shares)), "cameras": cameras, "images": images}


def write_realestate10k(root: Path, scenes: Scenes, per_chunk: int = 2) -> None:
    """Write chunks of two scenes, those for training and the same to test on."""
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        index, items = {}, list(scenes.items())
        for number in range(math.ceil(len(items) / per_chunk)):
            file = f"{number:06d}.torch"
            held = items[number * per_chunk : (number + 1) * per_chunk]
            torch.save([chunk_scene(key, views) for key, views in held], root / part / file)
            index |= {key: file for key, _ in held}
        (root / part / "index.json").write_text(json.dumps(index))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a layout is written, what of it is opened, and what must then be seen of the views that were written."""

    write: Callable[[Path, Scenes], None]
    kind: Kind = "room"
    size: tuple[int, int] = (48, 64)
    opened: str = "."
    image_folder: str | None = None
    seen: Callable[[Views], Views] = lambda views: Views(views.images, views.cameras)


def with_masks(views: Views) -> Views:
    """Return what renders with alpha show: everything but depths."""
    return dataclasses.replace(views, depths=None)


LAYOUTS: dict[str, Layout] = {
    "dl3dv": Layout(write_dl3dv, image_folder="images_4"),
    "dl3dv_480p": Layout(write_dl3dv, image_folder="images_8", seen=smaller),
    "dl3dv_portrait": Layout(write_dl3dv, size=(64, 48)),
    "dl3dv_benchmark": Layout(write_dl3dv_benchmark, image_folder="images_4"),
    "nerfstudio": Layout(write_nerfstudio, seen=lambda views: views),
    "opencv_cameras": Layout(write_opencv_cameras, "object", seen=with_masks),
    "listed": Layout(write_listed, "object", opened="objaverse_data_path.json", seen=with_masks),
    "zero123": Layout(write_zero123, "object", (64, 64), seen=lambda views: with_lens(with_masks(views), 35 / 32)),
    "gobjaverse": Layout(
        write_gobjaverse, "object", (64, 64), seen=lambda views: with_lens(with_masks(views), 1422.222 / 1024)
    ),
    "colmap": Layout(write_colmap),
    "realestate10k": Layout(write_realestate10k),
    "realestate10k_test": Layout(write_realestate10k, opened="test"),
}
