"""The `browser` connection: the artifact runs in a web page, here or on a phone."""
