"""Data that ships with the mill: cards of sources, recipes, run files, their schemas, and a small corpus of its own."""
