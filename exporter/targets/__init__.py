"""The targets: one file each, one line here."""
