"""What to do about a finding, which depends on the source that the bank was built from.

Advice names what a person can do to such a bank. Where nothing is measured of an effect on training, it says so.
"""

__all__ = ["NOTHING_TO_DO", "evidence_advice", "misplaced_advice", "shared_direction_advice", "unseen_advice"]

NOTHING_TO_DO = "Nothing needs to be done."

_EVIDENCE = {
    "word2vec": "Give more text, or raise --set word2vec.min_count=N, so that tokens of little evidence are unseen.",
    "cooccurrence": "Give more text, or raise --set cooccurrence.min_count=N, so that tokens of little evidence are "
    "unseen.",
    "lm-head": "They do little harm where your text hardly holds these tokens. Where it does hold them, take another "
    "checkpoint, or build with --source cooccurrence from your text.",
    "vocabulary": "Tokens of equal letters are equal by spelling. More of it is told apart with more "
    "--set vocabulary.dim=N.",
    "vectors": "Where tokens should not share a word's vector, build with --set vector_file.match=exact or word-start.",
    "transfer": "Sums of the donor's rows are shorter than its rows, and tokens of equal pieces have equal sums: see "
    "how near sums come to true rows in `costbank show`, or take a donor or a method that shares more tokens.",
}
_OTHER_EVIDENCE = "Use another source. Where text hardly holds these tokens, they do little harm."

_UNSEEN = {
    "word2vec": "Give more text to --corpus, or lower the bar with --set word2vec.min_count=N.",
    "cooccurrence": "Give more text to --corpus, or lower the bar with --set cooccurrence.min_count=N.",
    "lm-head": "Their rows in the head are zero. Take another checkpoint if your text holds these tokens.",
    "vocabulary": "They hold no letters to compare, so nothing needs to be done.",
    "vectors": "The file has no word for them. Take a file that has, or let words match more loosely with "
    "--set vector_file.match=folded.",
    "transfer": "None of their pieces has a vector in the donor. Take a donor that knows more of them.",
}
_OTHER_UNSEEN = "The source has no row for them, or a zero one: take another if your text holds these tokens."

_MISPLACED = {
    "lm-head": "Check that the tokenizer is the model's own and that its ids are the head's rows: some models shift "
    "ids, and one line too many in a vocabulary file shifts all after it. Otherwise the checkpoint is not trained.",
    "word2vec": "Check that the ids of the corpus are this tokenizer's. Then give more text or more epochs.",
    "cooccurrence": "Check that the ids of the corpus are this tokenizer's. Then give more text.",
    "vectors": "Check that the list of words, or the tokenizer, is that of the vectors: row i must be word i.",
    "transfer": "Run `costbank health` on the donor. If it is sound, check that its tokenizer is its own.",
}
_OTHER_MISPLACED = "Check that rows and tokens are in the same order."


def evidence_advice(source: str) -> str:
    """About rows that say little of their tokens, or are like others."""
    return _EVIDENCE.get(source, _OTHER_EVIDENCE)


def unseen_advice(source: str) -> str:
    """About tokens without a vector."""
    return _UNSEEN.get(source, _OTHER_UNSEEN)


def misplaced_advice(source: str) -> str:
    """About rows that do not seem to belong to their tokens."""
    return _MISPLACED.get(source, _OTHER_MISPLACED)


def shared_direction_advice(source: str, dim: int, transformed: bool) -> str:
    """About rows that share directions."""
    if dim < 3:
        return "Build with more dimensions."
    if transformed:
        return "Transforms were applied already: remove more directions with abtt:N, or use another source."
    if source == "lm-head":
        return (
            "This is usual in the head of a pretrained model, and the EMO paper takes such rows as they are. "
            "--set 'transforms=[\"center\"]' removes the mean of all rows. What that does to training has not been "
            "measured yet."
        )
    count = max(1, round(dim / 100))
    removal = (
        f"--set 'transforms=[\"abtt:{count}\"]' removes the mean and the strongest directions; dim / 100 is what "
        "Mu & Viswanath (2018) advise. What that does to training has not been measured yet."
    )
    return f"More text or more epochs spread the rows. {removal}" if source == "word2vec" else removal
