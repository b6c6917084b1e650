"""The agent: loads one artifact in a process of its own, runs it and times it; started as `python agent.pyz FOLDER`.

What is in this folder goes to boards, phones and emulators as it is, in one zip file with the loaders of the targets
(`agent_archive.py` makes it): it imports nothing else of the project, and needs only Python 3.9, numpy and the runtime
of the artifact. FOLDER holds `request.json` and `inputs.npz`; `response.json` and `outputs.npz` are written there, each
renamed into place when whole. Arrays travel as arr_0, arr_1, ... in the order of the names in the request, so that no
name can clash with a file or an argument.

Time is taken round the runtime's own call on inputs that are ready in the runtime's own containers; making those and
copying results out is not in it. Memory is the resident set of this process, in bytes.

A request with a `rival` compares two artifacts: both are loaded into this process and called in turn, so that what
slows the machine slows both; its inputs are in `rival.npz`, and no outputs are written.
"""
