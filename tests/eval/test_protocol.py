"""Protocols: the views that published tables rest on, on captures as they ship."""

import functools
import json
from pathlib import Path

import pytest
import torch

from lrm_ttt.data.images import load_views
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import choose_views
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.list_file import SceneViews, ViewLists, list_key, read_lists, write_lists
from lrm_ttt.eval.metrics import VARIANTS
from lrm_ttt.eval.protocol import LISTS, PROTOCOLS, choose, find_protocol, open_scenes
from lrm_ttt.scene.cameras import ImageSize
from tests.helpers.shared import shared_path


@functools.cache
def lists_of(name: str) -> ViewLists:
    return read_lists(LISTS / f"{name}.json")


@pytest.fixture(scope="module")
def mydesk() -> SceneSource:
    (source,) = open_scenes(find_protocol("hold_out_8"), shared_path("data", "mydesk"))
    return source


@pytest.mark.parametrize("count", [32, 64])
def test_a_scene_without_a_list_goes_by_kmeans(count: int, mydesk: SceneSource) -> None:
    """That it is Long-LRM's k-means is shown in tests/data/test_view_sampler.py."""
    source = mydesk
    choice = choose(find_protocol("hold_out_8"), source.name, source, count)
    assert choice.targets == tuple(range(0, 125, 8)) and len(choice.inputs) == count
    assert not set(choice.inputs) & set(choice.targets)
    assert choose(find_protocol("dl3dv_140"), source.name, source, count) == choice


def test_a_scene_as_dl3dv_ships_it(tmp_path: Path) -> None:
    protocol, folder = PROTOCOLS["dl3dv_140"], shared_path("data", "dl3dv_layout")
    (source,) = open_scenes(protocol, folder)
    assert all("images_4" in str(path) for path in source.image_paths)
    choice = choose(protocol, source.name, source, 5)
    assert choice.targets == (0, 8) and len(set(choice.inputs) - {0, 8}) == 5
    assert protocol.image_size is not None
    views = load_views(source, choice.targets[:1], ImageSize(*protocol.image_size), background=protocol.background)
    assert views.images.shape == (1, 3, 536, 960)
    # The lens is undone, 4 of 540 rows are cropped, and the middle row stays the middle.
    assert views.cameras.intrinsics[0, 3].item() == pytest.approx(268, abs=4)

    written = SceneViews({5: choice.inputs}, choice.targets)
    write_lists(tmp_path / "lists.json", ViewLists("mine", "", "", {list_key(source.name): written}))
    again = find_protocol(str(tmp_path / "lists.json"))
    assert choose(again, source.name, source, 5) == choice
    with pytest.raises(InvalidConfig, match="there are: 5"):
        choose(again, source.name, source, 6)


def test_computed_lists_give_the_same_choice_when_read_again(tmp_path: Path, mydesk: SceneSource) -> None:
    """Inputs for 64 views, which nobody publishes: computed once, written out, and from then on a list."""
    protocol, source = PROTOCOLS["dl3dv_140"], mydesk
    computed = {count: choose(protocol, source.name, source, count) for count in (16, 64)}
    inputs = SceneViews({count: choice.inputs for count, choice in computed.items()})
    path = tmp_path / "mine.json"
    write_lists(path, ViewLists("mine", "computed", "", {list_key(source.name): inputs}, hold_out=8))
    for count, choice in computed.items():
        # Another seed of k-means does not matter to a list.
        assert choose(find_protocol(str(path)), source.name, source, count, seed=7) == choice


def test_the_list_of_a_benchmark_scene_is_taken(mydesk: SceneSource) -> None:
    """As for a scene of that name with enough views."""
    lists = lists_of("dl3dv_140")
    name = next(iter(lists.scenes))
    source, times = mydesk, 4
    long = type(source)(
        **{
            **vars(source),
            "image_paths": source.image_paths * times,
            "cam_to_world": source.cam_to_world.repeat(times, 1, 1) + torch.rand(500, 1, 1).double(),
            "intrinsics": source.intrinsics.repeat(times, 1),
            "image_sizes": source.image_sizes * times,
            "distortion": source.distortion * times,
        }
    )
    for count in (16, 32):
        choice = choose(PROTOCOLS["dl3dv_140"], f"1K/{name}", long, count)
        assert choice.inputs == lists.scenes[name].inputs[count] and choice.targets == tuple(range(0, 500, 8))
    computed = choose(PROTOCOLS["dl3dv_140"], f"1K/{name}", long, 64)
    assert computed == choose_views(long, num_inputs=64, hold_out=8)


def test_folders_with_several_captures(tmp_path: Path) -> None:
    for name in ("lego", "gso_character"):
        (tmp_path / name).symlink_to(shared_path("data", name))
    for protocol in ("hold_out_8", "gso"):
        assert [source.name for source in open_scenes(find_protocol(protocol), tmp_path)] == ["gso_character", "lego"]
    (lego,) = open_scenes(find_protocol("hold_out_3"), tmp_path, ["lego"])
    choice = choose(find_protocol("hold_out_3"), "lego", lego, 4, seed=1)
    assert choice.targets == tuple(range(0, lego.num_views, 3)) and not set(choice.inputs) & set(choice.targets)
    with pytest.raises(InvalidConfig, match=r"no scene chair; there are: gso_character, lego"):
        list(open_scenes(find_protocol("hold_out_8"), tmp_path, ["lego", "chair"]))


def test_realestate10k_takes_the_scenes_and_views_of_its_index(tmp_path: Path) -> None:
    protocol = PROTOCOLS["realestate10k"]
    lists = lists_of("realestate10k")
    name, views = next((name, views) for name, views in lists.scenes.items() if views.inputs[2][1] == 45)
    png = torch.frombuffer(bytearray(shared_path("data", "lego", "train", "r_0.png").read_bytes()), dtype=torch.uint8)
    row = torch.cat([torch.tensor([0.5, 0.9, 0.5, 0.5, 0, 0]), torch.eye(4)[:3].flatten()])
    scenes = [{"key": key, "cameras": row.repeat(46, 1), "images": [png] * 46} for key in (name, "unlisted")]
    (tmp_path / "test").mkdir()
    torch.save(scenes, tmp_path / "test" / "000000.torch")
    (tmp_path / "test" / "index.json").write_text(json.dumps({name: "000000.torch", "unlisted": "000000.torch"}))
    (source,) = open_scenes(protocol, tmp_path)
    choice = choose(protocol, source.name, source, 2)
    assert source.name == name and choice.inputs == views.inputs[2] and choice.targets == views.targets
    with pytest.raises(InvalidConfig, match="there are: 2"):
        choose(protocol, source.name, source, 4)


def test_protocols_say_what_they_are() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and find_protocol(name) is protocol and set(protocol.metrics) <= set(VARIANTS)
        assert (protocol.hold_out is not None) or protocol.view_list is not None
        if protocol.view_list is not None:
            assert lists_of(name).hold_out == protocol.hold_out
    assert find_protocol("hold_out_8") is PROTOCOLS["hold_out_8"] and find_protocol("hold_out_5").hold_out == 5
    for wrong in ("hold_out_1", "hold_out_", "dl3dv"):
        with pytest.raises(InvalidConfig, match="realestate10k, hold_out_N"):
            find_protocol(wrong)


def test_tanks_and_temples_goes_by_the_names_of_folder_and_images(tmp_path: Path) -> None:
    """Of a COLMAP capture that is called truck, with fewer views than the real one."""
    protocol = PROTOCOLS["tanks_and_temples"]
    (tmp_path / "tandt").mkdir()
    (tmp_path / "tandt" / "Truck").symlink_to(shared_path("data", "tabletop"))
    (source,) = open_scenes(protocol, tmp_path)
    choice = choose(protocol, source.name, source, 10)
    assert choice == choose_views(source, num_inputs=10, hold_out=8)
    assert [str(path) for path in source.image_paths] == sorted(str(path) for path in source.image_paths)
    with pytest.raises(InvalidConfig, match="are not among"):
        choose(protocol, source.name, source, 16)
