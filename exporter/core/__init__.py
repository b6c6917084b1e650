"""What every room shares: frozen types, the error tree and the protocols. Imports no sibling."""
