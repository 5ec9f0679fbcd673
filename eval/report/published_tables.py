"""What papers print, apart from what was measured here."""

import html
from collections.abc import Callable

from lrm_ttt.eval.published import MARK, PublishedTable, absent_figures, read_published

# Title, name of the field, how it is written.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("PSNR", "psnr", "{:.2f}".format),
    ("SSIM", "ssim", "{:.3f}".format),
    ("LPIPS", "lpips", "{:.3f}".format),
    ("s", "seconds", "{:g}".format),
)


def published_section() -> list[str]:
    """Return the tables of all papers with their sources, as lines of HTML."""
    parts = ['<section class="published" id="published"><h2>What papers print']
    parts += [f' <span class="stamp">{html.escape(MARK)}</span></h2>']
    warning = "Other scenes, image sizes and machines than above: not to be compared number by number."
    parts += [f'<p class="note">{warning}</p>']
    for table in read_published():
        height, width = table.image_size
        parts += [f"<h3>{html.escape(table.dataset)}, {width}×{height}</h3>", _table(table), _source(table)]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in absent_figures())
    return [*parts, f'<ul class="note">{items}</ul></section>']


def _table(table: PublishedTable) -> str:
    """Return one row a method, with columns for each number of input views that the table has."""
    views = sorted({figure.views for figure in table.figures})
    found = {(figure.method, figure.views): figure for figure in table.figures}
    columns = [column for column in COLUMNS if any(getattr(figure, column[1]) is not None for figure in table.figures)]
    groups = "".join(f'<th scope="colgroup" colspan="{len(columns)}">{count} input views</th>' for count in views)
    titles = "".join(f'<th scope="col">{title}</th>' for title, _, _ in columns) * len(views)
    rows = []
    for method in dict.fromkeys(figure.method for figure in table.figures):
        cells = [f'<th scope="row">{html.escape(method)}</th>']
        for count in views:
            figure = found.get((method, count))
            values = [(getattr(figure, name, None), write) for _, name, write in columns]
            cells += [f"<td>{'–' if value is None else write(value)}</td>" for value, write in values]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = f'<tr><th scope="col" rowspan="2">Method</th>{groups}</tr><tr>{titles}</tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _source(table: PublishedTable) -> str:
    url = html.escape(table.url)
    text = html.escape(table.caption).replace(url, f'<a href="{url}">{url}</a>', 1)
    title = html.escape(f"{table.number} of {table.paper}")
    return f'<details class="note"><summary>{title}</summary><p>{text}</p></details>'
