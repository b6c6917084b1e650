"""The gate: what a repository lists to be checked, the figures that it committed, and what may move from them."""
