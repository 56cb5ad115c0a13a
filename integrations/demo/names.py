"""The names of the demo's upstream, families and features. Light to import."""

UPSTREAM = "digits"
FAMILIES = ("diffusion", "tokens")
FEATURES = "digits:"  # "digits:FOLDER" names the features of the classifier in a prepared data folder
