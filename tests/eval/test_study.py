"""Measurements of models on held-out scenes, and the curves drawn from them."""

import dataclasses
import json
from pathlib import Path

import torch

from lrm_ttt.eval.curves import Curves, draw, mean_and_spread, validation_curve
from lrm_ttt.eval.study import Study, held_out_scene, in_frame_of, run, show
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.model.config import ModelConfig
from tests.train.micro import MODEL


def plain(schedule: str = "causal", mixer: str = "fast_weight", representation: str = "gaussians") -> ModelConfig:
    """Return a small model without matching evidence."""
    backbone = dataclasses.replace(MODEL.backbone, schedule=schedule, views_per_update=2, mixer=mixer)
    tokenizer = dataclasses.replace(MODEL.tokenizer, evidence=None)
    head = dataclasses.replace(MODEL.head, distance="range")
    return dataclasses.replace(MODEL, backbone=backbone, tokenizer=tokenizer, head=head, representation=representation)


def test_fast_weights_have_one_size_and_softmax_grows_with_the_views(tmp_path: Path) -> None:
    sizes = {}
    for mixer in ("fast_weight", "softmax"):
        torch.manual_seed(0)
        save_pretrained(build(plain(mixer=mixer)), tmp_path / mixer)
        study = Study(str(tmp_path / mixer), tmp_path / "x.json", (2, 4), scenes=1, image_size=(16, 16), timings=1)
        sizes[mixer] = [row["state_mb"] for row in run(study)["views"]]
    assert sizes["fast_weight"][0] == sizes["fast_weight"][1]
    assert sizes["softmax"][1] == 2 * sizes["softmax"][0]


def test_streaming_everything_in_one_step_is_the_forward_pass(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_pretrained(build(plain()), tmp_path / "model")
    study = Study(
        str(tmp_path / "model"), tmp_path / "x.json", (4,), scenes=2, image_size=(16, 16), stream=4, timings=1
    )
    found = run(study)
    predicted, merged = found["stream"]
    assert (predicted["strategy"], merged["strategy"]) == ("re-predict", "merge")
    assert abs(predicted["psnr"] - found["views"][0]["psnr"]) < 1e-3
    assert abs(merged["psnr"] - predicted["psnr"]) < 1e-3


def test_novel_view_models_are_measured_by_their_own_images() -> None:
    torch.manual_seed(0)
    model = build(plain(representation="images"))
    scene = in_frame_of(model, held_out_scene(0, 3, (16, 16)), 3)
    with torch.inference_mode():
        colors, gaussians = show(model, scene)
    assert gaussians is None
    # A head that has learnt nothing answers with near-grey.
    assert (colors - 0.5).abs().max() < 0.2


def test_held_out_scenes_repeat_and_differ() -> None:
    first, again, other = (held_out_scene(index, 2, (16, 16)) for index in (0, 0, 1))
    assert torch.equal(first.inputs.images, again.inputs.images)
    assert not torch.equal(first.inputs.images, other.inputs.images)


def test_curves_take_the_mean_over_seeds_and_become_a_picture(tmp_path: Path) -> None:
    for seed, values in enumerate(((10.0, 20.0, 24.0), (12.0, 22.0))):
        folder = tmp_path / f"s{seed}"
        folder.mkdir()
        rows = [{"kind": "validation", "step": 0, "psnr": values[0]}]
        for step, value in enumerate(values[1:], 1):
            rows += [{"kind": "train", "step": 10 * step, "scenes": 40 * step, "hours": 0.1 * step}]
            rows += [{"kind": "validation", "step": 10 * step, "psnr": value}]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [validation_curve(tmp_path / f"s{seed}", "scenes") for seed in range(2)]
    assert lines[0] == [(0, 10.0), (40, 20.0), (80, 24.0)]
    assert mean_and_spread(lines) == ([(0, 11.0), (40, 21.0)], [10.0, 20.0], [12.0, 22.0])
    draw(Curves(tmp_path / "curves.png", runs=(f"both={tmp_path / 's0'},{tmp_path / 's1'}",)))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
