"""The parts of the report page, one file each; they draw with the charts and markup of `observe`, and `polaris.observe.page` puts them
together."""
