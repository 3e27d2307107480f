"""N-gram models of words, made here for the stage `perplexity`, as `lmplz` of KenLM makes them.

    counting.py    lines of words to distinct grams, order by order, with their counts
    estimate.py    interpolated modified Kneser-Ney, and the ARPA file that KenLM reads
    artifact.py    model.arpa, card.json and card.md, with head and tail from the percentiles of a reference

The law: after every context the probabilities of all words sum to 1. (`training.ngram` answers the same mathematics
for the tokens that a model read, and keeps what is asked of it alone; the halves share no code.)
"""
