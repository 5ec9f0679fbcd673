"""What a user of the command can get wrong, and what it prints."""

import json
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
    ("words", "said"), [([], "speed"), (["sped"], "speed"), (["speed", "--only", "kernels"], "ops")]
)
def test_what_there_is_not_is_told_from_what_there_is(
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
