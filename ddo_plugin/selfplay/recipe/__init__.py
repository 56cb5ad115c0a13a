"""Recipe files: their keys, their checks, and the plan that they become.

Whatever a person may write in a recipe is decided here. Nothing in this room runs a step.
"""
