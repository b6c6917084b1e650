"""Graph rewrites on a captured program; parity judges each of them with the rest of the lowering."""
