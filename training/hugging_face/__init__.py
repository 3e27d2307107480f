"""Configurations and weights as `transformers` names them: one file a family."""
