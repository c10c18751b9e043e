"""Power, heat and carbon: what a chip, a rack and a data centre draw while they work."""
