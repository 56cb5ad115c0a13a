"""The report of a self-play run: one HTML page with tables and figures, made from the run's journal.

This room reads what a run wrote, and changes nothing of it. The demo uses its figures and its page, too.
"""
