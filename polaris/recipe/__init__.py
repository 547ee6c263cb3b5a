"""The phases around training: difficulty, curation, temperature, stages and the final evaluation; it stands on `run` and `evaluation`, and
`train` and the commands of single phases start it."""
