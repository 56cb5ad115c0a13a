"""A finetuning run inside upstream's process: its options, its session, its fakes and its statistics.

What upstream's loop calls belongs here; how a checkout's script is started does not (checkouts), nor how rounds follow
one another (selfplay).
"""
