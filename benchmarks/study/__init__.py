"""What cost embeddings do to a model: the same model trained with one loss after another, over paired seeds.

    python -m benchmarks.study small --text FILE

README.md next to this file says what is compared and how.
"""
