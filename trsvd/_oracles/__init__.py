"""Leading singular pairs and polar factors for the balls, and bounds of their gap."""
