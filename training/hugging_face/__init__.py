"""Checkpoints in the layout of Hugging Face: one file a family that says how names and settings correspond."""
