"""The source `vocabulary`: vectors of the tokens' own bytes."""
