"""The arithmetic of the losses: blocks of logits in, losses and closed-form gradients out; see ../README.md."""
