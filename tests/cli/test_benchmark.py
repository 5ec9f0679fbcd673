"""What a user of the command can get wrong, and what it prints."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lrm_ttt import cli
from tests.cli.typed import refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes"),
        (["--views", "8", "0"], "--views"),
        (["--device", "gpu"], "there are auto, cpu"),
    ],
)
def test_mistakes_are_one_message(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(["benchmark", "speed", *words], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sped"], "Did you mean speed?"),
        (["quick"], "Did you mean quick_cpu?"),
        (["speed", "--threads", "1"], "--threads belongs to `lrm-ttt benchmark CONFIG`"),
        (["speed", "--data", "x", "--allow-missing"], "--data --allow-missing belong to"),
        (["quick_cpu", "--minutes", "1"], "--minutes belongs to `lrm-ttt benchmark speed`"),
        (["quick_cpu", "--workers", "0"], "workers 0: at least 1"),
        (["quick_cpu", "--data", "nowhere"], "nowhere/gso_character: there is no such scene"),
    ],
)
def test_what_there_is_not_is_told_from_what_there_is(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(["benchmark", *words], capsys)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_comparison_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the embedded model, on one object: what is finished is kept, and the second run ends it."""
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nviews: [2]\nprocedural: {objects: 1, rooms: 0, num_views: 12, image_size: [16, 16]}\n"
        "methods: [{name: ours, feed_forward: {}}, {name: long, optimise: {iterations: 1000000}}]\n"
    )
    words = ["benchmark", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "out"), "--device", "cpu", "--threads", "1"]
    rows = tmp_path / "out" / "results.jsonl"
    ended = threading.Event()
    interrupter = threading.Thread(target=interrupt_when, args=(lambda: rows.is_file() and rows.read_text(), ended))
    interrupter.start()
    try:
        assert cli.main(words) == cli.INTERRUPTED
    finally:
        ended.set()
        interrupter.join()
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'} holds the cells that are finished; the same command goes on with the others." in said
    assert "1 of 2 cells have not been run" in (tmp_path / "out" / "table.md").read_text()
    content = rows.read_text()
    assert cli.main([*words, "--only-methods", "ours"]) == 0
    assert "1 of 1 cells" in capsys.readouterr().out
    assert rows.read_text() == content and (tmp_path / "out" / "report.html").is_file()


def test_a_cell_that_fails_is_named_and_is_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nviews: [2]\nprocedural: {objects: 1, rooms: 0, num_views: 12, image_size: [16, 16]}\n"
        f"methods: [{{name: absent, feed_forward: {{checkpoint: {tmp_path / 'nowhere'}}}}}]\n"
    )
    with pytest.raises(SystemExit) as exit_:
        cli.main(["benchmark", str(tmp_path / "bad.yaml"), "-o", str(tmp_path / "out"), "--device", "cpu"])
    assert exit_.value.code == 1
    assert "* absent on object-0, 2 views: " in (tmp_path / "out" / "table.md").read_text()


def interrupt_when(condition: Callable[[], object], ended: threading.Event) -> None:
    """Press Ctrl-C once a condition holds, or after some minutes; not where what is to be interrupted has ended."""
    end = time.monotonic() + 150
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
        if ended.is_set():
            return
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("words", "said"), [([], "CONFIG"), (["speed", "--only", "kernels"], "ops")])
def test_what_cannot_be_read_is_answered_by_what_can(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["benchmark", *words])
    assert exit_.value.code == cli.USERS_MISTAKE
    assert said in capsys.readouterr().err


def test_a_folder_with_a_result_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.md").write_text("an earlier one")
    assert "--overwrite" in refused(["benchmark", "speed", "-o", str(tmp_path)], capsys)
    assert (tmp_path / "table.md").read_text() == "an earlier one"


def test_the_last_line_is_json_and_the_rest_is_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-o", str(tmp_path / "out"), "--only", "ceilings", "--minutes", "0.02", "--device", "cpu"]
    assert cli.main(["benchmark", "speed", *words]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["machine"]["hardware"]["threads"] == torch.get_num_threads()
    assert "\n".join(table).strip() == (tmp_path / "out" / "table.md").read_text().strip()
    assert {row["stage"] for row in found["rows"]} == {"ceilings"}
