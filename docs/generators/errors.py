"""The reference of errors, made from `costbank.errors`."""

from costbank import errors
from costbank.errors import CostbankError
from docs.generators.problems import codes, tree
from docs.generators.tables import table

__all__ = ["page"]

_TEXT = """# Errors

Every error that a user can cause is in the tree below; any other exception is a bug. An error has a message that says
what is wrong, and a hint that says what to do:

- The command line prints them on stderr, as `error: …` and `hint: …`, and exits with the status of the error.
- The HTTP service answers with a problem document (RFC 9457) with the code of the error.
- In Python, catch the class. `.message` and `.hint` are the two texts.

```
{tree}
```

{codes}
## Exit statuses of the command line

{statuses}
## Codes of the HTTP service

Each code has a page. If `COSTBANK_PROBLEM_BASE` is the URL of the folder `errors` with these pages, the `type` of a
problem is the URL of its page.

{pages}"""

_STATUSES = {
    "0": "success",
    "2": "an option, a setting or a reference is malformed",
    "3": "a bank, a token or a file does not exist",
    "4": "a file of a bank is damaged",
    "5": "the input cannot be used",
    "130": "interrupted (Ctrl-C)",
    "141": "the reader of the output closed it, as in `costbank list | head -1`",
    "143": "terminated (SIGTERM)",
}


def page() -> str:
    """The tree of errors, their codes, and the exit statuses."""
    kinds = [kind for name in errors.__all__ if _is_error(kind := getattr(errors, name))]
    rows = [(f"`{k.code}`", k.title, f"`{k.__name__}`", str(k.exit_status), str(k.http_status)) for k in kinds]
    return _TEXT.format(
        tree=tree(),
        codes=table(("code", "title", "class", "exit status", "HTTP status"), sorted(rows)),
        pages=table(
            ("code", "HTTP status", "meaning"),
            ((f"[`{code.code}`](errors/{code.code}.md)", str(code.status), code.meaning) for code in codes()),
        ),
        statuses=table(("status", "meaning"), _STATUSES.items()),
    )


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, CostbankError)
