"""Files and streams that other people, other processes and full disks have a hand in, for every part of the project.

`errors` is the root of the error tree, `files` reads and writes single files, `places` decides where output may go,
`staging` puts folders in place whole or not at all, `npz` reads arrays, `command` runs a command line. Standard library
and numpy only; what is promised under faults is written in docs/faults.md.
"""

from safeio.invocation import require_command

require_command(__name__, __path__)
