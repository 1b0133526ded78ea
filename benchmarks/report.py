"""How a benchmark's tables are made and put into the pages that show them."""

import sys
from collections.abc import Sequence

import measure


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write(text: str, pages: Sequence[str], mark: str = "benchmarks") -> None:
    """Put a text between the marks ``<!-- mark: begin -->`` and ``<!-- mark: end -->`` of every page that has them."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    for page in pages:
        path = measure.ROOT / page
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if begin in old and end in old:
            before, rest = old.split(begin, 1)
            path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")
            print(f"written to {page}", file=sys.stderr)
