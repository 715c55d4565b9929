"""Files that the contributors' pages name exist, hooks run tools of `make lint`, and issue forms are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LIBRARY = (ROOT / "costbank" / "README.md").read_text("utf-8")
WHERE = LIBRARY[LIBRARY.index("## Where to change what\n") : LIBRARY.index("### A new source\n")]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8") + WHERE
HEADS = ("| to add or change |", "| folder |")
TABLE_ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(HEADS)]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def test_every_path_named_for_contributors_exists():
    paths = [code for code in re.findall(r"`([^`\s]+)`", PAGE) if "/" in code]
    assert len(paths) > 45
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", TABLE_ROWS, ids=lambda row: row.split("|")[1].strip())
def test_files_named_without_a_folder_are_in_the_folder_of_their_row(row: str):
    folders = [ROOT / path for path in re.findall(r"`([^`\s]+/)`", row)]
    for name in re.findall(r"`(\w+\.py)`", row):
        assert any((folder / name).is_file() for folder in folders), name
    for constant in re.findall(r"`(_?[A-Z]+)`", row):
        files = [path for folder in folders for path in (*folder.glob("*.py"), *folder.parent.glob("*.py"))]
        code = "\n".join(path.read_text("utf-8") for path in files)
        assert re.search(rf"^{constant}\b.*=", code, re.M), constant


def test_every_row_of_where_to_change_what_names_a_place_and_a_test():
    rows = [line for line in WHERE.splitlines() if line.startswith("| ") and not line.startswith(HEADS)]
    assert len(rows) >= 16
    for row in rows:
        _, _, places, test, _ = row.split("|")
        assert re.search(r"`[\w/]+/[\w.]*`", places), row
        assert re.search(r"`tests/[\w/.]+`", test), row


def test_every_folder_of_tests_is_described():
    described = set(re.findall(r"tests/(\w+)`", "\n".join(TABLE_ROWS)))
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= described


def test_commits_are_checked_by_the_tools_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert recipe is not None
    checks = re.findall(r"\$\(BIN\)/(\S+(?: check| format)?)", recipe[1])
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
        assert any(hook["entry"].removeprefix(".venv/bin/").startswith(check) for check in checks)
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "codespell", "lint-imports"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_issue_forms_are_ones_that_github_accepts(form: Path):
    content: dict[str, Any] = yaml.safe_load(form.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(content)
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert fields
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


def test_a_bug_report_asks_for_the_version_the_command_its_output_and_the_manifest():
    content = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text("utf-8"))
    fields = {field["id"]: field for field in content["body"] if "id" in field}
    assert {name for name, field in fields.items() if field.get("validations", {}).get("required")} >= {
        "version", "command", "output",
    }  # fmt: skip
    assert "`costbank --version`" in fields["version"]["attributes"]["description"]
    assert "manifest.json" in fields["manifest"]["attributes"]["description"]
