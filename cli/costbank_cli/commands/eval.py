"""`costbank eval BANK`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank, complete_file
from costbank_cli.output import console_progress, json_option, note, print_facts, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.analysis.substitution import Substitution
    from costbank.analysis.word_tests import Score, WordTest

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
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", shell_complete=complete_file,
              help="Held-out text: test how well neighbors stand in for its tokens.")  # fmt: skip
@click.option("--tokenizer", type=click.Path(path_type=Path), metavar="FILE", shell_complete=complete_file,
              help="Tokenizer that the bank was built with; --text needs it.")  # fmt: skip
@click.option("-k", type=int, help="Number of neighbors (for --text). [default: 10]")
@store_option
@json_option
def command(
    bank: str, word_files: tuple[Path, ...], group_files: tuple[Path, ...], text: Path | None, tokenizer: Path | None,
    k: int | None, store: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Test whether similar words have low costs, and neighbors fit held-out text.

    \b
    costbank eval my-bank
    costbank eval my-bank --words pairs.tsv --groups synonyms.tsv
    costbank eval my-bank --text held-out.txt --tokenizer my.model

    Without files, the test is on English: Spearman's ρ between similarities and the judgments of WordSim-353 and
    SimLex-999, and the accuracy of analogies; these lists are part of gensim. With files, the test is on these alone.
    Of a group, the measures are the share of a word's group among its nearest words (precision), and how often a word
    of the group has a lower cost than a word outside (AUC).

    The first column is for words that are one token; the second also uses words of several pieces, with the normalized
    mean of the pieces' vectors. The pieces are the longest tokens that match, which can differ from the tokenizer's.
    `used` is the number of pairs, questions or words that count, of those given.

    With --text, the score is how much likelier the k nearest of a token are in its contexts than random tokens of their
    frequencies, in nats per token: about 0 for a bank of random vectors, and the higher the better. Compare banks of
    one tokenizer on one text that is not part of their corpora. A line is a text of its own; at most 2,000,000 tokens
    are used.
    """
    from costbank import open_bank
    from costbank.analysis.held_out import score_text
    from costbank.analysis.word_tests import word_tests
    from costbank.analysis.wordlists import english_judgments, english_questions, read_groups, read_judgments
    from costbank.errors import require

    for option, value in (("--tokenizer", tokenizer), ("-k", k)):
        if value is not None and text is None:
            raise click.UsageError(f"{option} belongs to --text; give both")
    k = 10 if k is None else k
    english = not (word_files or group_files or text)
    judgments = english_judgments() if english else {str(path): read_judgments(path) for path in word_files}
    questions = {"analogies": english_questions()} if english else {}
    groups = {str(path): read_groups(path) for path in group_files}
    if judgments or groups:
        require("scipy.stats", "build")  # before the score on a text, which takes time
    opened = open_bank(bank, store)
    progress = console_progress()
    substitution = None if text is None else score_text(opened, text, tokenizer, k, progress)
    tests = word_tests(opened, judgments, questions, groups, progress) if judgments or groups else []
    if as_json:
        of_text = None if substitution is None else {"text": str(text), "k": k, **asdict(substitution)}
        words = [asdict(test) for test in tests]
        print_json({"bank": opened.name, "id": opened.id, "tests": words, "substitution": of_text})
        return
    if substitution is not None:
        print_facts(_facts(text, k, substitution))
    if tests:
        _print_tests(tests, blank_line=substitution is not None)


def _print_tests(tests: "list[WordTest]", blank_line: bool) -> None:
    if blank_line:
        click.echo()
    print_table(
        ("test", "measure", "one token", "used", "with pieces", "used"),
        [(t.test, _MEASURES[t.measure], *_cells(t.one_token), *_cells(t.with_pieces)) for t in tests],
        right=("one token", "used", "with pieces"),
    )
    if any(test.with_pieces.value is None for test in tests):
        note("a dash means that too few words are in this vocabulary, or that all values are equal")


def _facts(text: Path | None, k: int, substitution: "Substitution") -> dict[str, object]:
    s = substitution
    return {
        "text": f"{text}: {s.tokens:,} tokens, {s.softened / s.tokens:.1%} of them with neighbors",
        f"substitution@{k}": f"{s.score:.4f} nats per token; 0 is chance "
        f"({s.left:.4f} from the token before, {s.right:.4f} from the one after)",
    }


def _cells(score: "Score") -> tuple[object, str]:
    return "–" if score.value is None else score.value, f"{score.used:,} of {score.given:,}"
