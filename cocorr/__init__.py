"""Small trained recommenders on phones, and the proof that they still say the same thing there."""

from safeio.invocation import require_command

require_command(__name__, __path__)
