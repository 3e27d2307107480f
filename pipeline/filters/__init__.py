"""Classifiers of documents, trained here: fastText supervised on two labelled sources, in the set-up of DCLM (Li et al.
2024, arXiv 2406.11794, section 4.4): labels hq and cc, word n-grams of 2, fastText's defaults otherwise.

    texts.py       the documents of a card or a file as training texts, each text once, some held back
    training.py    fastText in a process of its own: one thread and a seed, so the same texts give the same bytes
    judging.py     area under the ROC curve with a bootstrap interval, and what each threshold keeps
    card.py        what a filter says of itself
    artifact.py    model.bin, card.json and card.md: a folder that is whole or not there

The law: what a model is judged on, it has not seen, nor has its equal text. The stage `classifier` applies it.
"""
