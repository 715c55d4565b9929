"""The shells' side of completion: click's protocol, and a bash script that knows how bash cuts words."""

import os
import sys
from typing import NoReturn

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

__all__ = ["complete"]

_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value == *= ]] && compopt -o nospace
                ;;
        esac
    done <<< "$(IFS=$'\\n'; env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \\
        COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)"
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Completion for bash, which breaks words at `=`, `:` and `@` and replaces only what follows the last break."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE")
        if not line:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if line[-1].isspace() else words.pop()
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        items = super().get_completions(args, incomplete)
        if incomplete.startswith("--"):  # --option=value: click completes the value alone
            incomplete = incomplete.partition("=")[2]
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        cuts = [incomplete.rfind(mark) + 1 for mark in "=:" if mark in breaks]
        cuts += [incomplete.rfind("@")] if "@" in breaks else []  # bash counts this one to the word after it
        kept = incomplete[: max([0, *cuts])]
        return [CompletionItem(item.value.removeprefix(kept), item.type, item.help) for item in items]


def complete() -> NoReturn:
    """Answer a shell's request in `$_COSTBANK_COMPLETE`, and exit. A failure offers nothing and prints nothing."""
    from costbank_cli.command_line import command_line

    add_completion_class(_Bash)
    try:
        command_line.main([], prog_name="costbank")
    except Exception:
        sys.exit(1)
    sys.exit(0)
