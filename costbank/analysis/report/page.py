"""The page: the content of a report in the template, with all scripts and styles inlined."""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costbank.analysis.report.charts import DARK
from costbank.analysis.report.content import ReportContent, gather
from costbank.bank import Bank
from costbank.errors import InputNotFoundError, UsageError, require
from costbank.files import write_atomically
from costbank.plurals import counted
from costbank.progress import Progress, QuietProgress
from costbank.token_names import printable, text_bytes

__all__ = ["WrittenReport", "report_page", "write_report"]

_EXTRA = "report"
_LONGEST_TEXT = 80
_UNSAFE_IN_SCRIPTS = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class WrittenReport:
    """The file of a report, and its size in bytes."""

    path: Path
    size: int


def write_report(
    bank: Bank, out: Path, other: Bank | None = None, *, force: bool = False, progress: Progress | None = None
) -> WrittenReport:
    """Write the report of a bank to a file, which appears when it is complete.

    Args:
        bank: the bank.
        out: the file to create.
        other: a second bank to compare it with.
        force: replace `out` if it exists.
        progress: receives the steps.

    Raises:
        UsageError: `out` is a directory, or exists and `force` is false.
        InputNotFoundError: the folder of `out` does not exist.
        InputError: the banks have too few tokens in common.
        MissingExtraError: Plotly or Jinja2 is not installed (extra `report`), or, with `other`, FAISS or SciPy
            (extra `build`).
        CorruptBankError: a file of a bank has impossible values.
        StorageError: the disk is full, or the folder cannot be written.
    """
    _check_out(out, force)
    data = report_page(bank, other, progress).encode()
    _check_out(out, force)
    write_atomically(out, data)
    return WrittenReport(out, len(data))


def report_page(bank: Bank, other: Bank | None = None, progress: Progress | None = None) -> str:
    """The report as HTML, without anything that a browser would load from elsewhere; the same for the same banks.

    Args:
        bank: the bank.
        other: a second bank to compare it with.
        progress: receives the steps.

    Raises:
        InputError, MissingExtraError, CorruptBankError: see `write_report`.
    """
    for library in ("jinja2", "plotly.graph_objects"):
        require(library, _EXTRA)
    for library in ("faiss", "scipy.stats") if other else ():
        require(library, "build")
    progress = progress or QuietProgress()
    content = gather(bank, other, progress)
    with progress.step("write the page"):
        return _rendered(content)


def _rendered(content: ReportContent) -> str:
    plotly = require("plotly.offline", _EXTRA).get_plotlyjs()
    own_script = _resource("page.js")
    charts = {
        "dark": DARK,
        "charts": {
            chart.key: {"figure": chart.figure, "height": chart.height, "zooms": chart.zooms}
            for section in content.charts.values()
            for chart in section
        },
    }
    return _template().render(
        content=content, style=_resource("page.css"), plotly=plotly, script=own_script,
        script_hashes=" ".join(f"'sha256-{_digest(text)}'" for text in (plotly, own_script)),
        data=json.dumps(charts, sort_keys=True, allow_nan=False, ensure_ascii=False).translate(_UNSAFE_IN_SCRIPTS),
    )  # fmt: skip


def _template() -> Any:
    jinja2 = require("jinja2", _EXTRA)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": _shown, "counted": counted, "number": _number}
    return environment.from_string(_resource("page.html"))


def _resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _digest(script: str) -> str:
    """The sha256 of a script as a Content-Security-Policy writes it. Only these two scripts may run in the page."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _shown(text: object, longest: int = _LONGEST_TEXT) -> str:
    """A text as one printable line with a largest length; control characters and broken text become escapes."""
    line = printable(text_bytes(str(text)))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _check_out(out: Path, force: bool) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "give the file to create, such as report.html")
    if not out.parent.is_dir():
        raise InputNotFoundError(f"the folder {out.parent} does not exist", f"create it first: mkdir -p {out.parent}")
    if out.exists() and not force:
        raise UsageError(f"{out} already exists", "choose another --out, or replace the file with --force")
