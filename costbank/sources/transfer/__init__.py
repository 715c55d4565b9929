"""The source `transfer`: the bank of one tokenizer, carried over to another."""
