"""HOW it runs: the scheduler core, the lanes, and the asyncio driver around them."""
