"""One module for each command; `gn_det_cli.main` finds them here."""
