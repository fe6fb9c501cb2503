"""Leading singular pairs and polar factors for the balls, with their gaps."""
