"""Self-play: rounds of finetuning in which the best snapshot of a round becomes the reference of the next.

This room decides which steps follow one another and which snapshots win. How a command runs belongs in `jobs`, and what
the command does belongs in the integrations.
"""
