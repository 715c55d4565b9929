"""What to do about a finding. It depends on the source that the bank was built from.

If the effect on training has not been measured, the advice says so.
"""

__all__ = ["NOTHING_TO_DO", "evidence_advice", "misplaced_advice", "shared_direction_advice", "unseen_advice"]

NOTHING_TO_DO = "Nothing needs to be done."

_EVIDENCE = {
    "word2vec": "Use more text, or raise --set word2vec.min_count=N, so that rare tokens become unseen.",
    "cooccurrence": "Use more text, or raise --set cooccurrence.min_count=N, so that rare tokens become unseen.",
    "lm-head": "These rows do little harm if the tokens are rare in your text. If they are frequent, use another "
    "checkpoint, or build with --source cooccurrence from your text.",
    "spelling": "Tokens with the same letters have the same row. A larger --set spelling.dim=N distinguishes more "
    "spellings.",
    "vectors": "If tokens should not share a word's vector, build with --set vectors.match=exact or word-start.",
    "transfer": "Sums of the donor's rows are shorter than its rows, and tokens with the same pieces have the same "
    "sum. `costbank show` says how close sums are to true rows. A donor or a method that shares more tokens may help.",
}
_OTHER_EVIDENCE = "Use another source. If these tokens are rare in your text, they do little harm."

_UNSEEN = {
    "word2vec": "Add text to --corpus, or lower --set word2vec.min_count=N.",
    "cooccurrence": "Add text to --corpus, or lower --set cooccurrence.min_count=N.",
    "lm-head": "Their rows in the head are zero. Use another checkpoint if your text has these tokens.",
    "spelling": "They have no letters to compare, so nothing needs to be done.",
    "vectors": "The file has no word for them. Use a file that has one, or match words more loosely with "
    "--set vectors.match=folded.",
    "transfer": "None of their pieces has a vector in the donor. Use a donor with more of their pieces.",
}
_OTHER_UNSEEN = "The source has no row for them, or a zero row: use another source if your text has these tokens."

_MISPLACED = {
    "lm-head": "Check that the tokenizer is the model's own and that its ids are the head's rows: some models shift "
    "ids, and an extra line in a vocabulary file shifts all ids after it. Otherwise the checkpoint is untrained.",
    "word2vec": "Check that the ids of the corpus are this tokenizer's. Then use more text or more epochs.",
    "cooccurrence": "Check that the ids of the corpus are this tokenizer's. Then use more text.",
    "vectors": "Check that the word list, or the tokenizer, belongs to the vectors: row i must be word i.",
    "transfer": "Run `costbank health` on the donor. If the donor is good, check that its tokenizer belongs to it.",
}
_OTHER_MISPLACED = "Check that rows and tokens are in the same order."


def evidence_advice(source: str) -> str:
    """About rows that have little information about their tokens, or are equal to others."""
    return _EVIDENCE.get(source, _OTHER_EVIDENCE)


def unseen_advice(source: str) -> str:
    """About tokens without a vector."""
    return _UNSEEN.get(source, _OTHER_UNSEEN)


def misplaced_advice(source: str) -> str:
    """About rows that seem to belong to other tokens."""
    return _MISPLACED.get(source, _OTHER_MISPLACED)


def shared_direction_advice(source: str, dim: int, transformed: bool) -> str:
    """About rows that share directions."""
    if dim < 3:
        return "Build with more dimensions."
    if transformed:
        return "Transforms were applied already: remove more directions with abtt:N, or use another source."
    if source == "lm-head":
        return (
            "This is usual in the head of a pretrained model, and the EMO paper uses such rows unchanged. "
            "--set 'transforms=[\"center\"]' removes the mean of all rows. With such rows, a small model that was "
            "trained further kept more of its earlier text (3.7 to 6.4 % lower perplexity), at 0.1 to 0.6 % higher "
            "perplexity of the new one (two seeds)."
        )
    count = max(1, round(dim / 100))
    removal = (
        f"--set 'transforms=[\"abtt:{count}\"]' removes the mean and the strongest directions; dim / 100 is what "
        "Mu & Viswanath (2018) recommend. Its effect on training has not been measured yet."
    )
    return f"More text or more epochs spread the rows. {removal}" if source == "word2vec" else removal
