"""The losses in training frameworks: `huggingface` (Trainer, and TRL's SFTTrainer) and `lightning`.

Each module imports its framework. This one imports nothing.
"""
