"""Declaring: operators, pipelines, Tasks and streams, as users see them."""
