"""What benchmark.json and view_lists.json say of a benchmark."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lrm_ttt.config_io import to_mapping
from lrm_ttt.eval.benchmark.cells import Subset
from lrm_ttt.eval.benchmark.plan import Plan
from lrm_ttt.eval.benchmark.scenes import BenchmarkScene
from lrm_ttt.eval.list_file import SceneViews, ViewLists, list_key
from lrm_ttt.eval.metrics import variants, why_no_lpips
from lrm_ttt.eval.speed.machine import machine


def describe(plan: Plan, earlier: Mapping[str, Any] | None, command: str, subset: Subset) -> dict[str, Any]:
    """Return benchmark.json: what is compared, how, on which machine; `runs` are all that have filled the folder."""
    config, made = plan.config, machine(plan.device, command)
    run = {"command": command, "date": made["date"], "commit": made["commit"], "only": dataclasses.asdict(subset)}
    return {
        "name": config.name,
        "command": command,
        "commit": made["commit"],
        "date": made["date"],
        "hardware": made["hardware"] | {"threads": plan.threads},
        "versions": made["versions"],
        "config": to_mapping(config),
        "metric_variants": variants(config.lpips),
        "lpips": why_no_lpips(config.lpips),
        "missing": [*config.missing, *plan.left_out],
        "remarks": [*config.remarks, *_rules(plan)],
        "cells": len(plan.cells),
        "scenes": [_scene(plan, scene) for scene in plan.scenes.values()],
        "runs": [*(earlier or {}).get("runs", []), run],
    }


def _rules(plan: Plan) -> list[str]:
    """Say once what each protocol is."""
    rules = {scene.rules.name: scene.rules for scene in plan.scenes.values()}
    return [f"{name}: {each.description.rstrip('.')}. {each.crop.capitalize()}." for name, each in rules.items()]


def view_lists(plan: Plan) -> ViewLists:
    """Return the indices of inputs and targets by scene and number of inputs, as a protocol that repeats them."""
    scenes = {}
    for name, place in plan.scenes.items():
        choices = {views: choice for (scene, views), choice in plan.choices.items() if scene == name}
        if choices:
            inputs = {views: choice.inputs for views, choice in choices.items()}
            scenes[list_key(place.source.name)] = SceneViews(inputs, next(iter(choices.values())).targets)
    return ViewLists(plan.config.name, f"chosen by the benchmark {plan.config.name}", "", scenes)


def _scene(plan: Plan, scene: BenchmarkScene) -> dict[str, Any]:
    targets = [choice.targets for (name, _), choice in plan.choices.items() if name == scene.name]
    return {
        "name": scene.name,
        "protocol": scene.protocol,
        "image_size": list(scene.image_size),
        "background": list(scene.background),
        "targets": list(targets[0]) if targets else [],
        "num_views": scene.source.num_views,
        "views": sorted(views for name, views in plan.choices if name == scene.name),
    }
