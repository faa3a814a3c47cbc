"""A prepared directory as one HTML page: amounts, audio to hear, and rejects with their reasons."""
