"""The commands, a file for each group of them; exporter/cli.py puts them together.

The command line imports all of them when it starts: reports and what is slow to import are imported in functions.
"""
