"""The generated pages: write them, or check that they are up to date."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from docs.generators import command_line, errors, figures, problems, python_api, service, settings, study

__all__ = ["PAGES", "outdated", "write_all"]

DOCS = Path(__file__).parents[1]

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/cli.md": command_line.page,
    "reference/settings.md": settings.page,
    "reference/http.md": service.page,
    "reference/openapi.json": service.openapi,
    "reference/errors.md": errors.page,
    **{f"reference/errors/{code.code}.md": partial(problems.page, code) for code in problems.codes()},
    "reference/python.md": python_api.page,
    "measured.md": figures.page,
    "study.md": study.page,
    "assets/study.svg": study.chart,
    "assets/forgetting.svg": study.forgetting_chart,
    "../README.md": figures.readme,
}
"""Each generated page, relative to `docs/`, and the function that returns its text."""


def write_all(folder: Path = DOCS) -> None:
    """Write every generated page into `folder`."""
    for name, make in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), "utf-8")


def outdated(folder: Path = DOCS) -> list[str]:
    """The generated pages in `folder` that are missing or out of date."""
    return [name for name, make in PAGES.items() if not _is(folder / name, make())]


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text("utf-8") == text
