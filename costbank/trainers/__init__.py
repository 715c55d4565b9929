"""The losses inside training frameworks: `huggingface` (Trainer, and TRL's SFTTrainer) and `lightning`.

Each module imports its framework; this one imports nothing.
"""
