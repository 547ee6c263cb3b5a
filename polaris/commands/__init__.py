"""The subcommands of `polaris`, one file each with its options; `cli` lists them, and each starts work of the folders below when it is
run."""
