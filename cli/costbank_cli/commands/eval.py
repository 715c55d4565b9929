"""`costbank eval BANK`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank, complete_file
from costbank_cli.output import console_progress, json_option, note, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.analysis.word_tests import Score

__all__ = ["command"]

_MEASURES = {
    "spearman": "Spearman's ρ",
    "accuracy": "accuracy",
    "precision": "precision",
    "auc": "AUC (0.5 is chance)",
}


@click.command("eval")
@click.argument("bank", shell_complete=complete_bank)
@click.option("--words", "word_files", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
              shell_complete=complete_file,
              help="Your own judgments: word, tab, word, tab, score on each line. Can be repeated.")  # fmt: skip
@click.option("--groups", "group_files", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
              shell_complete=complete_file,
              help="Synonyms: the words of a group on one line, separated by tabs. Can be repeated.")  # fmt: skip
@store_option
@json_option
def command(
    bank: str, word_files: tuple[Path, ...], group_files: tuple[Path, ...], store: Path | None, as_json: bool
) -> None:
    """Test whether words with similar meanings have low costs.

    \b
    costbank eval my-bank
    costbank eval my-bank --words pairs.tsv --groups synonyms.tsv

    Without files, the test is on English: Spearman's ρ between similarities and the judgments of WordSim-353 and
    SimLex-999, and the accuracy of analogies; these lists are part of gensim. With files, the test is on these alone.
    Of a group, the measures are the share of a word's group among its nearest words (precision), and how often a word
    of the group has a lower cost than a word outside (AUC).

    The first column is for words that are one token; the second also uses words of several pieces, with the normalized
    mean of the pieces' vectors. The pieces are the longest tokens that match, which can differ from the tokenizer's.
    `used` is the number of pairs, questions or words that count, of those given.
    """
    from costbank import open_bank
    from costbank.analysis.word_tests import word_tests
    from costbank.analysis.wordlists import english_judgments, english_questions, read_groups, read_judgments

    english = not (word_files or group_files)
    judgments = english_judgments() if english else {str(path): read_judgments(path) for path in word_files}
    questions = {"analogies": english_questions()} if english else {}
    groups = {str(path): read_groups(path) for path in group_files}
    opened = open_bank(bank, store)
    tests = word_tests(opened, judgments, questions, groups, console_progress())
    if as_json:
        print_json({"bank": opened.name, "id": opened.id, "tests": [asdict(test) for test in tests]})
        return
    print_table(
        ("test", "measure", "one token", "used", "with pieces", "used"),
        [(t.test, _MEASURES[t.measure], *_cells(t.one_token), *_cells(t.with_pieces)) for t in tests],
        right=("one token", "used", "with pieces"),
    )
    if any(test.with_pieces.value is None for test in tests):
        note("a dash means that too few words are in this vocabulary, or that all values are equal")


def _cells(score: "Score") -> tuple[object, str]:
    return "–" if score.value is None else score.value, f"{score.used:,} of {score.given:,}"
