"""Names by which other commands know the demo's integration; light to import."""

UPSTREAM = "digits"
FAMILIES = ("diffusion", "tokens")
FEATURES = "digits:"  # "digits:FOLDER" names the features of the classifier in a prepared data folder
