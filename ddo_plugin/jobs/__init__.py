"""Commands that run once, are recorded in a journal, and can be resumed: on this machine or as Slurm jobs.

A job knows its command, its output and its log. What the commands do, and how rounds follow one another, belongs in
`selfplay`.
"""
