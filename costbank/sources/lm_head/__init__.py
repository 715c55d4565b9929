"""The source `lm-head`: the rows of a pretrained model's LM head."""
