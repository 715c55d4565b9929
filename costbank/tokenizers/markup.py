"""Which added tokens are markup and not part of a text, by their names.

The files of one model disagree: a tokenizer.json says that Gemma's `<mask>` or Qwen's `<|fim_prefix|>` is ordinary, and
the GGUF file of the same model says that it is a control token. For `<start_of_image>` it is the other way around.
So one rule decides for all files.
"""

import re

__all__ = ["is_markup"]

_MARKUP = re.compile(r"<\|\S*\|>|<｜\S*｜>|<(?:mask|2mass|pad|s|/s|unk|bos|eos)>|\[@BOS@\]|<(?:start|end)_of_\w+>")


def is_markup(text: str) -> bool:
    """Whether an added token with this text is special, whatever its file says."""
    return bool(_MARKUP.fullmatch(text))
