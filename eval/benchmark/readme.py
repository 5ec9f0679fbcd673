"""Write a benchmark's results into a document, between `<!-- benchmark:NAME -->` and `<!-- /benchmark -->`.

`python -m lrm_ttt.eval.benchmark.readme OUT README.md` is how the results of the README are made: a document that says
numbers of its own would soon say others than the command gives.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from lrm_ttt.errors import InvalidConfig, LrmTttError
from lrm_ttt.eval.benchmark.folder import write_whole
from lrm_ttt.eval.benchmark.table import groups_of, markdown, provenance
from lrm_ttt.eval.report.means import mean_rows, number
from lrm_ttt.eval.report.results import Results, read_results
from lrm_ttt.pipeline.outputs import refusals_explained

END = "<!-- /benchmark -->"


@dataclass(frozen=True)
class Arguments:
    """Which results, and where they go."""

    folder: tyro.conf.Positional[Path]
    """The output folder of a benchmark."""
    document: tyro.conf.Positional[Path]
    """A Markdown file with the two markers, of which NAME is the name of the benchmark."""


def write_results(folder: Path, document: Path) -> None:
    """Replace what lies between the markers; raises `InvalidConfig` for a document without them."""
    results = read_results(folder)
    begin = f"<!-- benchmark:{results.about['name']} -->"
    with refusals_explained(document):
        if not document.is_file():
            raise InvalidConfig(f"{document}: there is no such file. Name the document to write into.")
        text = document.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise InvalidConfig(
                f"{document}: has no place for these results. Write a line {begin} and below it a line {END}, once."
            )
        written = "\n\n".join([begin, *short_tables(results), END])
        write_whole(document, pattern.sub(lambda _: written, text))


def short_tables(results: Results) -> list[str]:
    """Return a table for each group of scenes: PSNR and seconds against the number of views; and where they are from.

    A method that has not finished every scene is left out, and named.
    """
    parts = []
    for title, scenes in groups_of(results).items():
        rows = {(row["method"], row["views"]): row for row in mean_rows(results, scenes)}
        complete = [
            method
            for method in results.methods
            if all(rows[method, views]["scenes"] == rows[method, views]["of"] > 0 for views in results.views)
        ]
        head = ["method", *(f"PSNR, {views} views" for views in results.views)]
        head += [f"seconds, {views} views" for views in results.views]
        lines = [
            [
                method,
                *(f"{rows[method, views]['psnr']:.2f}" for views in results.views),
                *(number(rows[method, views]["seconds"]) for views in results.views),
            ]
            for method in complete
        ]
        parts += [f"{title}, mean over {len(scenes)}:", markdown(head, lines)]
        if rest := [method for method in results.methods if method not in complete]:
            parts.append(f"Not finished on every scene: {', '.join(rest)}.")
    missing = [f"Missing: {line.rstrip('.')}." for line in results.about["missing"]]
    return [*parts, *missing, *provenance(results)]


def main() -> None:
    """Write, or say what is wrong."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        write_results(arguments.folder, arguments.document)
    except LrmTttError as error:
        raise SystemExit(f"readme: {error}") from error


if __name__ == "__main__":
    main()
