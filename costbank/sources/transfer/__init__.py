"""The source `transfer`: the vectors of a bank of one tokenizer, for another tokenizer."""
