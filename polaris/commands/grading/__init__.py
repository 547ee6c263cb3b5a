"""What `polaris grade` does with a file of responses; it stands on `reward` and `data`, and `polaris.commands.grade` prints it."""
