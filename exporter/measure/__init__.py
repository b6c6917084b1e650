"""What an artifact costs: formulas and statistics, no printing. Imports core and numpy only."""
