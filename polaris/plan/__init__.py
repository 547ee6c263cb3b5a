"""What a configuration needs of GPUs, host and disk, and how long it takes: arithmetic from config.json, without a GPU."""
