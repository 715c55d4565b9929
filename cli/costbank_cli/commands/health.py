"""`costbank health BANK`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.output import facts_table, json_option, print_json, print_table, progress_for_people, store_option

if TYPE_CHECKING:
    from costbank.analysis.health import Duplicates, Finding, Health, NamedGroup, NamedToken, WordForms

__all__ = ["command"]

_NOT_KNOWN = "not known"
_REFERENCES = {"unused": "unused rows", "equal-rows": "rows that tokens share"}


@click.command("health")
@click.argument("bank")
@click.option("--names", "named", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many tokens, or groups of them, a finding names.")  # fmt: skip
@store_option
@json_option
def command(bank: str, named: int, store: Path | None, as_json: bool) -> None:
    """Report the quality of a bank's vectors.

    Tests whether forms of a word (king, ▁king, ▁King, ▁kings) lie nearer to each other than chance, which random
    vectors and rows of other tokens do not pass. Then examines the geometry: rows that share a direction, hubs,
    duplicates, zero and saturated rows, unusual lengths, and tokens that were hardly trained. Names the tokens and says
    what to do. The exit status is 0 whatever it finds.
    """
    from costbank.analysis.health import health
    from costbank.bank import open_bank

    found = health(open_bank(bank, store), named, progress_for_people())
    if as_json:
        print_json(asdict(found) | {"quality": found.quality, "verdict": found.verdict})
        return
    facts_table(_facts(found))
    if found.findings:
        click.echo()
        rows = [(f.severity.value, f.code, f"{f.count:,}", _tokens(f)) for f in found.findings]
        print_table(("severity", "finding", "count", "tokens"), rows, right=("count",))
        for finding in found.findings:
            click.echo(f"\n{finding.code}: {finding.meaning}\n  {finding.advice}")
    click.echo(f"\nverdict: {found.verdict}")


def _facts(found: "Health") -> dict[str, object]:
    norms, isotropy, hubness = found.norms, found.isotropy, found.hubness
    saturation, training = found.saturation, found.under_training
    return {
        "bank": f"{found.bank}@{found.id}",
        "tokens": ", ".join(f"{count:,} {name}" for name, count in found.status.items() if count),
        "vectors": f"{found.vectors:,} × {found.dim:,}",
        "word forms": _forms(found.word_forms),
        "raw norms": _NOT_KNOWN
        if norms is None
        else f"{norms.least:.3g} to {norms.largest:.3g}, median {norms.median:.3g}, "
        f"1 % below {norms.percentile_1:.3g}, 1 % above {norms.percentile_99:.3g}; "
        f"{norms.small:,} too small, {norms.large:,} too large",
        "mean cosine": _NOT_KNOWN if found.mean_cosine is None else f"{found.mean_cosine:.4f}",
        "isotropy": _NOT_KNOWN
        if isotropy is None
        else f"{isotropy.score:.4f} (IsoScore), effective dimension {isotropy.effective_dimension:,.1f}"
        + (f", from {isotropy.sampled:,} rows" if isotropy.sampled else ""),
        "hubness": _NOT_KNOWN
        if hubness is None
        else f"skewness of N{hubness.k} {hubness.skewness:.2f}, largest {hubness.largest:,}; "
        f"{hubness.hubs:,} hubs, {hubness.antihubs:,} anti-hubs (tokens in no one's list)",
        "duplicates": _groups(found.duplicates),
        "near-duplicates": _groups(found.near_duplicates),
        "saturated": _NOT_KNOWN
        if saturation is None
        else f"{saturation.whole:,} rows, {saturation.partly:,} in part; "
        f"median variation {saturation.median_variation:.3f}",
        "under-trained": _NOT_KNOWN
        if training is None
        else f"{training.candidates:,} candidates; cosine to {_REFERENCES[training.reference]}: "
        f"median {training.median:.3f}, largest {training.largest:.3f}, threshold {training.threshold:.3f}",
    }


def _forms(found: "WordForms") -> str:
    if found.auc is None:
        return "too few to tell"
    kinds = ", ".join(f"{k.kind} {k.auc:.3f} ± {k.standard_error:.3f} ({k.pairs:,} pairs)" for k in found.kinds)
    return f"AUC {kinds}; 0.5 is chance; {found.tokens:,} tokens have such a form"


def _groups(found: "Duplicates | None") -> str:
    if found is None:
        return _NOT_KNOWN
    if not found.groups:
        return "none"
    plural = "s" if found.groups > 1 else ""
    return f"{found.tokens:,} tokens in {found.groups:,} group{plural}, {found.largest:,} in the largest"


def _tokens(finding: "Finding") -> str:
    if finding.groups:
        return "; ".join(map(_group, finding.groups))
    return ", ".join(map(_token, finding.tokens))


def _group(group: "NamedGroup") -> str:
    left_out = group.size - len(group.tokens)
    return " = ".join([*map(_token, group.tokens), *([f"{left_out:,} more"] if left_out else [])])


def _token(token: "NamedToken") -> str:
    value = "" if token.value is None else f" ({token.value:.3g})"
    return f"{token.id} {token.text}{value}"
