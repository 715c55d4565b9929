"""Completion in bash, zsh and fish: click's protocol, with scripts that match how each shell splits words."""

import os
import sys
from typing import NoReturn

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

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

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local type value help
    local -a plain described assignments
    (( ! $+commands[%(prog_name)s] )) && return 1
    while IFS= read -r type && IFS= read -r value && IFS= read -r help; do
        case $type in
            dir) compset -p $value; _path_files -/ ;;
            file) compset -p $value; _path_files -f ;;
            plain)
                if [[ $value == *= ]]; then
                    assignments+=("$value:$help")
                elif [[ $help == _ ]]; then
                    plain+=("$value")
                else
                    described+=("$value:$help")
                fi
                ;;
        esac
    done < <(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)
    (( $#assignments )) && _describe -V unsorted assignments -U -S ''
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l words (commandline -cp | string collect)
    set -l word (commandline -ct | string collect)
    for line in (env COMP_WORDS=$words COMP_CWORD=$word %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set -l fields (string split -m 2 , -- $line)
        switch $fields[1]
            case dir
                printf "$fields[2]%%s\\n" (__fish_complete_directories $fields[3])
            case file
                printf "$fields[2]%%s\\n" (__fish_complete_path $fields[3])
            case plain
                string sub -s 7 -- $line
        end
    end
end

complete --no-files --keep-order --command %(prog_name)s --arguments "(%(complete_func)s)"
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
        if incomplete.startswith("--"):  # --engine=ray: click completes the value alone
            incomplete = incomplete.partition("=")[2]
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        cuts = [incomplete.rfind(mark) + 1 for mark in "=:" if mark in breaks]
        cuts += [incomplete.rfind("@")] if "@" in breaks else []  # for bash, @ belongs to the word after it
        kept = incomplete[: max([0, *cuts])]
        return [CompletionItem(item.value.removeprefix(kept), item.type, item.help) for item in items]


class _Zsh(ZshComplete):
    """Completion for zsh, which replaces whole words, and adds a space unless a word ends in `=`."""

    source_template = _ZSH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return _whole_words(super().get_completions(args, incomplete), incomplete)

    def format_completion(self, item: CompletionItem) -> str:
        if item.type in ("dir", "file"):  # the script completes a path after this many characters of the word
            return f"{item.type}\n{len(item.prefix)}\n_"
        described = item.help or item.value.endswith("=")  # _describe takes value:help
        value = item.value.replace("\\", "\\\\").replace(":", "\\:") if described else item.value
        return f"{item.type}\n{value}\n{item.help or '_'}"


class _Fish(FishComplete):
    """Completion for fish, which replaces whole words."""

    source_template = _FISH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return _whole_words(super().get_completions(args, incomplete), incomplete)

    def format_completion(self, item: CompletionItem) -> str:
        if item.type in ("dir", "file"):
            return f"{item.type},{item.prefix},{item.value.removeprefix(item.prefix)}"
        return super().format_completion(item)


def _whole_words(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """Items that replace the whole word on the command line; for `--engine=ray`, click's items are only `ray`."""
    option = incomplete[: incomplete.find("=") + 1] if incomplete.startswith("--") else ""
    return [
        CompletionItem(option + item.value, item.type, item.help, prefix=option + (item.prefix or "")) for item in items
    ]


def complete() -> NoReturn:
    """Answer a shell's request in `$_COSTBANK_COMPLETE`, and exit. If this fails, nothing is printed."""
    from costbank_cli.command_line import command_line

    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)
    try:
        command_line.main([], prog_name="costbank")
    except Exception:
        sys.exit(1)
    sys.exit(0)
