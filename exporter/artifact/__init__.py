"""What an artifact's folder holds and what its manifest may say."""
