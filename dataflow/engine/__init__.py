"""HOW it runs: the scheduler core, the pool and its workers, and the asyncio driver around them."""
