"""`costbank health BANK`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, print_facts, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.analysis.health import Duplicates, Finding, HealthReport, NamedGroup, NamedToken, WordForms

__all__ = ["command"]

_UNKNOWN = "unknown"
_REFERENCES = {"unused": "unused rows", "equal-rows": "rows shared by tokens"}


@click.command("health")
@click.argument("bank", shell_complete=complete_bank)
@click.option("--names", "named", type=click.IntRange(min=0), default=10, show_default=True,
              help="Number of tokens, or groups of tokens, to name per finding.")  # fmt: skip
@store_option
@json_option
def command(bank: str, named: int, store: Path | None, as_json: bool) -> None:
    """Report the quality of a bank's vectors.

    \b
    costbank health my-bank --names 20

    The report first tests whether forms of a word (king, ▁king, ▁King, ▁kings) are nearer to each other than by chance;
    random vectors and vectors of another tokenizer fail this test. It then examines the geometry: anisotropy, hubs,
    duplicates, zero and saturated rows, unusual norms, and under-trained tokens. Each finding names its tokens and says
    what to do. The exit status is 0 whatever the findings are.
    """
    from costbank import open_bank
    from costbank.analysis.health import health

    report = health(open_bank(bank, store), named, console_progress())
    if as_json:
        print_json(asdict(report) | {"quality": report.quality, "verdict": report.verdict})
        return
    print_facts(_facts(report))
    if report.findings:
        click.echo()
        rows = [(f.severity.value, f.code, f"{f.count:,}", _tokens(f)) for f in report.findings]
        print_table(("severity", "finding", "count", "tokens"), rows, right=("count",))
        for finding in report.findings:
            click.echo(f"\n{finding.code}: {finding.meaning}\n  {finding.advice}")
    click.echo(f"\nverdict: {report.verdict}")


def _facts(report: "HealthReport") -> dict[str, object]:
    norms, isotropy, hubness = report.norms, report.isotropy, report.hubness
    saturation, training = report.saturation, report.under_training
    return {
        "bank": f"{report.bank}@{report.id}",
        "tokens": ", ".join(f"{count:,} {name}" for name, count in report.status.items() if count),
        "vectors": f"{report.vectors:,} × {report.dim:,}",
        "word forms": _forms(report.word_forms),
        "raw norms": _UNKNOWN
        if norms is None
        else f"{norms.least:.3g} to {norms.largest:.3g}, median {norms.median:.3g}, "
        f"1 % below {norms.percentile_1:.3g}, 1 % above {norms.percentile_99:.3g}; "
        f"{norms.small:,} too small, {norms.large:,} too large",
        "mean cosine": _UNKNOWN if report.mean_cosine is None else f"{report.mean_cosine:.4f}",
        "isotropy": _UNKNOWN
        if isotropy is None
        else f"{isotropy.score:.4f} (IsoScore), effective dimension {isotropy.effective_dimension:,.1f}"
        + (f", from {isotropy.sampled:,} rows" if isotropy.sampled else ""),
        "hubness": _UNKNOWN
        if hubness is None
        else f"skewness of N{hubness.k} {hubness.skewness:.2f}, largest {hubness.largest:,}; "
        f"{hubness.hubs:,} hubs, {hubness.antihubs:,} anti-hubs (tokens in no one's neighbor list)",
        "duplicates": _groups(report.duplicates),
        "near-duplicates": _groups(report.near_duplicates),
        "saturated": _UNKNOWN
        if saturation is None
        else f"{saturation.whole:,} rows fully, {saturation.partly:,} partly; "
        f"median variation {saturation.median_variation:.3f}",
        "under-trained": _UNKNOWN
        if training is None
        else f"{training.candidates:,} candidates; cosine to {_REFERENCES[training.reference]}: "
        f"median {training.median:.3f}, largest {training.largest:.3f}, threshold {training.threshold:.3f}",
    }


def _forms(forms: "WordForms") -> str:
    if forms.auc is None:
        return "too few to test"
    kinds = ", ".join(f"{k.kind} {k.auc:.3f} ± {k.standard_error:.3f} ({k.pairs:,} pairs)" for k in forms.kinds)
    return f"AUC {kinds}; 0.5 is chance; {forms.tokens:,} tokens have another form"


def _groups(duplicates: "Duplicates | None") -> str:
    if duplicates is None:
        return _UNKNOWN
    if not duplicates.groups:
        return "none"
    plural = "s" if duplicates.groups > 1 else ""
    return f"{duplicates.tokens:,} tokens in {duplicates.groups:,} group{plural}, {duplicates.largest:,} in the largest"


def _tokens(finding: "Finding") -> str:
    if finding.groups:
        return "; ".join(map(_group, finding.groups))
    return ", ".join(map(_token, finding.tokens))


def _group(group: "NamedGroup") -> str:
    omitted = group.size - len(group.tokens)
    return " = ".join([*map(_token, group.tokens), *([f"{omitted:,} more"] if omitted else [])])


def _token(token: "NamedToken") -> str:
    value = "" if token.value is None else f" ({token.value:.3g})"
    return f"{token.id} {token.text}{value}"
