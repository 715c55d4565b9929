"""Write the generated pages, or check that they are up to date."""

import sys

from docs.generators.pages import outdated, write_all


def main(arguments: list[str]) -> int:
    """The exit status: 0 for success, 1 if `--check` names pages that are out of date, 2 for other arguments."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m docs.generators [--check]", file=sys.stderr)
        return 2
    if not arguments:
        write_all()
        return 0
    names = outdated()
    for name in names:
        print(f"{name} is out of date: run python -m docs.generators", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
