"""Lower trained on-device recommenders to phone formats and prove that they still give the same scores."""

from safeio.invocation import require_command

require_command(__name__, __path__)
