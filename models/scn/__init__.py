"""CoCorrRec: the self-correction network, its global correction network, and the programs of both."""
