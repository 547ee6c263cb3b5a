"""What `polaris data check` finds in a prompt set; it stands on `data` and `reward`, and `polaris.commands.data` prints it."""
