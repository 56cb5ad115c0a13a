"""Files, errors, ranks, downloads and the machine: what every other room may use and what needs none of them.

Code that knows of networks, checkouts or finetuning does not belong here.
"""
