"""The source `lm-head`: the rows of the LM head of a pretrained model."""
