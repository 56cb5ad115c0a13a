"""One self-play recipe for each run of the paper, and one that runs on a CPU; import name ddo_recipes."""
