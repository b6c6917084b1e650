"""The backbones whose blocks Forward-OFA chooses from: what both have in common, and one file each."""
