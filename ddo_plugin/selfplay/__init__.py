"""Rounds of finetuning in which the best snapshot of one becomes the reference of the next."""
