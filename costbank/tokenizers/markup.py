"""Added tokens that mark up a text rather than stand in it, known by their names.

Files of one model disagree on these: a tokenizer.json calls Gemma's `<mask>` or Qwen's `<|fim_prefix|>` ordinary, and
the GGUF file of that model calls them control tokens; for `<start_of_image>` it is the other way round. So one rule
decides.
"""

import re

__all__ = ["is_markup"]

_MARKUP = re.compile(r"<\|\S*\|>|<｜\S*｜>|<(?:mask|2mass|pad|s|/s|unk|bos|eos)>|\[@BOS@\]|<(?:start|end)_of_\w+>")


def is_markup(text: str) -> bool:
    """Whether an added token of this name is special, whatever its file says."""
    return bool(_MARKUP.fullmatch(text))
