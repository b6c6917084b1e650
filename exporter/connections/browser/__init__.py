"""Artifacts in a web page: in a headless Chromium of this machine, or on any phone whose browser opens a URL.

What runs there is what npm has as plain WebAssembly: its times are those of a page, never of a native runtime.
"""
